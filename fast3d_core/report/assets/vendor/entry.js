// What the page uses of three.js and Chart.js; README.md says how libraries.min.js is made of it.
export {
  AmbientLight, Box3, BoxGeometry, DirectionalLight, EdgesGeometry, GridHelper, Group, LineBasicMaterial, LineSegments,
  Mesh, MeshLambertMaterial, PerspectiveCamera, Raycaster, Scene, Spherical, Vector2, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { LineMaterial } from "three/addons/lines/LineMaterial.js";
export { LineSegments2 } from "three/addons/lines/LineSegments2.js";
export { LineSegmentsGeometry } from "three/addons/lines/LineSegmentsGeometry.js";
export { CSS2DObject, CSS2DRenderer } from "three/addons/renderers/CSS2DRenderer.js";
export {
  BarController, BarElement, CategoryScale, Chart, Legend, LineElement, LinearScale, PointElement, ScatterController,
  Tooltip,
} from "chart.js";
