from fast3d_cli.app import main

main()
