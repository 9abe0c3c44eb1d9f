"""What a file says reaches the terminal as plain characters."""

from fast3d_cli.console import error, note


def test_no_terminal_takes_orders_from_a_file(capfd):
    for tell in (error, note):
        tell("scene \x1b[31mred\x07\r\x9b2J [bold]name[/] \u202e\ud800")
        line = capfd.readouterr().err.strip()
        assert line.isprintable() and "[bold]name[/]" in line and "[31mred" in line, line
