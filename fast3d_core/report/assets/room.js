"use strict";
// A room in 3D, drawn by three.js: a box for each object, outlines of what was asked for and what was answered.

/* global Libraries, element, styled, onTheme */

const TURN = 0.12; // radians for one press of an arrow key
const DECADES = 3; // that the colours of attention span
const FILLED = 0.9; // of the picture by the whole room
const NAMED_AT_MOST = 14; // names of kept objects in the picture, those with most attention

class Room {
  /** In `container`; `onPoint(slot or null)` is told which object the pointer is on. */
  constructor(container, onPoint) {
    const three = Libraries;
    this.container = container;
    this.renderer = new three.WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.names = new three.CSS2DRenderer();
    this.names.domElement.className = "names";
    container.append(this.renderer.domElement, this.names.domElement);
    this.world = new three.Scene();
    const sun = new three.DirectionalLight(0xffffff, 1.6);
    sun.position.set(2, -3, 6);
    this.world.add(new three.AmbientLight(0xffffff, 1.9), sun);
    this.camera = new three.PerspectiveCamera(42, 1, 0.05, 500);
    this.camera.up.set(0, 0, 1); // boxes have z upwards
    this.controls = new three.OrbitControls(this.camera, this.renderer.domElement);
    this.controls.addEventListener("change", () => this.draw());
    this.objects = [];
    this.named = []; // slots whose names are in the picture, the most important first
    this.furniture = new three.Group();
    this.world.add(this.furniture);
    this.controls.enableZoom = false; // else a page that is scrolled would stop here
    container.addEventListener("focus", () => (this.controls.enableZoom = true));
    container.addEventListener("blur", () => (this.controls.enableZoom = false));
    container.addEventListener("pointerdown", () => container.focus({ preventScroll: true }));
    container.addEventListener("keydown", (event) => this.#key(event));
    this.renderer.domElement.addEventListener("pointermove", (event) => onPoint(this.#slotAt(event)));
    this.renderer.domElement.addEventListener("pointerleave", () => onPoint(null));
    new ResizeObserver(() => this.#fit()).observe(container);
    onTheme(() => this.repaint());
  }

  /** Puts up the boxes (n, 6), centre and size in metres, and shows all of them. */
  show({ boxes, labels }) {
    const three = Libraries;
    this.looks = null;
    this.named = [];
    this.world.remove(this.furniture);
    this.furniture.traverse(release);
    this.names.domElement.replaceChildren();
    this.furniture = new three.Group();
    this.world.add(this.furniture);
    this.bounds = new three.Box3();
    const cube = new three.BoxGeometry(1, 1, 1);
    const edges = new three.EdgesGeometry(cube);
    this.objects = boxes.map((box, slot) => {
      const mesh = new three.Mesh(cube, new three.MeshLambertMaterial({ transparent: true }));
      const rim = new three.LineSegments(edges, new three.LineBasicMaterial({ transparent: true }));
      const tag = element("div", { className: "name" }, labels[slot]);
      const name = new three.CSS2DObject(tag);
      for (const one of [mesh, rim]) {
        one.position.set(...box.slice(0, 3));
        one.scale.set(...box.slice(3).map((size) => Math.max(size, 0.01)));
        this.furniture.add(one);
      }
      name.position.set(box[0], box[1], box[2] + box[5] / 2);
      this.furniture.add(name);
      mesh.userData.slot = slot;
      this.bounds.expandByObject(mesh);
      return { box, mesh, rim, name, tag };
    });
    if (!boxes.length) this.bounds.set(new three.Vector3(-1, -1, 0), new three.Vector3(1, 1, 1));
    this.outlines = new three.Group();
    this.furniture.add(this.outlines);
    this.whole();
  }

  /**
   * How the objects look now: `kept` and `named`, sets of slots; `targets`, (n, 6) boxes; `share`, attention by slot, or
   * null; `names`: kept, all or none.
   */
  paint(looks) {
    this.looks = looks;
    this.repaint();
  }

  repaint() {
    if (!this.looks) return this.draw();
    const { kept, share, named, targets, names } = this.looks;
    const ramp = styled("ramp").split(" ");
    const most = share ? Math.max(...share.slice(0, this.objects.length)) : 0;
    const byShare = (slots) => [...slots].sort((a, b) => (share ? share[b] - share[a] : a - b));
    const wanted = { none: [], kept: byShare(kept).slice(0, NAMED_AT_MOST), all: byShare(this.objects.keys()) }[names];
    this.named = [...new Set(names === "none" ? [] : [...named, ...wanted])].filter((slot) => this.objects[slot]);
    const shown = new Set(this.named);
    this.objects.forEach(({ mesh, rim, name, tag }, slot) => {
      const stays = kept.has(slot);
      mesh.material.color.set(share ? rampColour(ramp, most ? share[slot] / most : 0) : styled("none"));
      mesh.material.opacity = stays ? 0.88 : 0.07;
      mesh.material.depthWrite = stays;
      mesh.renderOrder = stays ? 0 : 1;
      rim.material.color.set(styled(stays ? "ink" : "faint"));
      rim.material.opacity = stays ? 0.55 : 0.3;
      name.visible = shown.has(slot);
      tag.className = stays ? "name" : "name pruned";
    });
    this.#outline(targets.map((box) => [box, "target", 0.05, false]).concat(
      [...named].filter((slot) => this.objects[slot]).map((slot) => [this.objects[slot].box, "named", 0.12, true]),
    ));
    const outlined = this.outlines.children.map((outline) => new Libraries.Box3().setFromObject(outline));
    for (const one of this.objects) {
      one.outlined = outlined.map((bounds) => bounds.containsPoint(one.mesh.position));
      one.name.center.set(0.5, one.outlined.includes(true) ? 2.2 : 1.3); // above its top, and further above an outline
    }
    this.#floor();
    this.draw();
  }

  #outline(boxes) {
    const three = Libraries;
    this.outlines.traverse(release);
    this.outlines.clear();
    const edges = new three.LineSegmentsGeometry().fromEdgesGeometry(new three.EdgesGeometry(new three.BoxGeometry(1, 1, 1)));
    for (const [box, colour, grown, dashed] of boxes) {
      const scale = box.slice(3).map((size) => size + grown); // metres
      const material = new three.LineMaterial({ color: styled(colour), linewidth: dashed ? 2.5 : 4, dashed, dashSize: 0.09, gapSize: 0.07 });
      material.resolution.copy(this.renderer.getSize(new three.Vector2()));
      const line = new three.LineSegments2(edges, material);
      line.position.set(...box.slice(0, 3));
      line.scale.set(...scale);
      line.renderOrder = 2;
      if (dashed) line.computeLineDistances();
      this.outlines.add(line);
    }
  }

  #floor() {
    const three = Libraries;
    if (this.grid) {
      this.world.remove(this.grid);
      release(this.grid);
    }
    const size = this.bounds.getSize(new three.Vector3());
    const middle = this.bounds.getCenter(new three.Vector3());
    const metres = Math.ceil(Math.max(size.x, size.y)) + 1;
    this.grid = new three.GridHelper(metres, metres, styled("line"), styled("line"));
    this.grid.rotation.x = Math.PI / 2;
    this.grid.position.set(middle.x, middle.y, this.bounds.min.z - 0.01);
    this.world.add(this.grid);
  }

  /** The part of the window that an outline takes, as `getBoundingClientRect` tells it. */
  #placeOf(outline) {
    const three = Libraries;
    const area = this.container.getBoundingClientRect();
    const corners = boxCorners(new three.Box3().setFromObject(outline)).map((corner) => corner.project(this.camera));
    const { min, max } = new three.Box3().setFromPoints(corners);
    const across = (x) => area.left + ((x + 1) / 2) * area.width;
    const down = (y) => area.top + ((1 - y) / 2) * area.height;
    return { left: across(min.x), right: across(max.x), top: down(max.y), bottom: down(min.y) };
  }

  /** The camera where all of the room is seen, and fills the picture. */
  whole() {
    const three = Libraries;
    const corners = boxCorners(this.bounds);
    const from = new three.Vector3(-0.35, -0.85, 0.75).normalize();
    const middle = this.bounds.getCenter(new three.Vector3());
    let distance = 2 * this.bounds.getSize(new three.Vector3()).length();
    const half = Math.tan((this.camera.fov / 2) * (Math.PI / 180));
    for (let i = 0; i < 8; i++) { // what is nearer is larger, so the middle of the picture is not that of the room
      this.camera.position.copy(middle).addScaledVector(from, distance);
      this.camera.lookAt(middle);
      this.camera.updateMatrixWorld();
      const seen = new three.Box3().setFromPoints(corners.map((corner) => corner.clone().project(this.camera)));
      const [right, up] = [0, 1].map((axis) => new three.Vector3().setFromMatrixColumn(this.camera.matrixWorld, axis));
      middle.addScaledVector(right, ((seen.min.x + seen.max.x) / 2) * half * this.camera.aspect * distance);
      middle.addScaledVector(up, ((seen.min.y + seen.max.y) / 2) * half * distance);
      distance *= Math.max(seen.max.x - seen.min.x, seen.max.y - seen.min.y) / 2 / FILLED;
    }
    this.controls.target.copy(middle);
    this.controls.update();
    this.draw();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's
    const moves = {
      ArrowLeft: [-TURN, 0, 1], ArrowRight: [TURN, 0, 1], ArrowUp: [0, -TURN, 1], ArrowDown: [0, TURN, 1],
      "+": [0, 0, 0.9], "=": [0, 0, 0.9], "-": [0, 0, 1.1],
    };
    if (event.key === "0") this.whole();
    else if (moves[event.key]) this.#orbit(...moves[event.key]);
    else return;
    event.preventDefault();
  }

  /** Turns the camera around the middle by angles in radians, and its distance by a factor. */
  #orbit(sideways, up, further) {
    const three = Libraries;
    const { position } = this.camera;
    const away = position.clone().sub(this.controls.target);
    // three's spherical coordinates have y upwards, the room has z
    const at = new three.Spherical().setFromVector3(new three.Vector3(away.x, away.z, -away.y));
    at.theta += sideways;
    at.phi = Math.min(Math.max(at.phi + up, 0.05), Math.PI - 0.05);
    at.radius *= further;
    const turned = new three.Vector3().setFromSpherical(at);
    position.copy(this.controls.target).add(new three.Vector3(turned.x, -turned.z, turned.y));
    this.controls.update();
    this.draw();
  }

  #slotAt(event) {
    const three = Libraries;
    const area = this.renderer.domElement.getBoundingClientRect();
    const at = new three.Vector2(
      (2 * (event.clientX - area.left)) / area.width - 1, 1 - (2 * (event.clientY - area.top)) / area.height,
    );
    const ray = new three.Raycaster();
    ray.setFromCamera(at, this.camera);
    const hits = ray.intersectObjects(this.objects.map(({ mesh }) => mesh)).map(({ object }) => object.userData.slot);
    return hits.find((slot) => this.looks?.kept.has(slot)) ?? hits[0] ?? null;
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.container;
    if (!width || !height) return;
    this.renderer.setSize(width, height);
    this.names.setSize(width, height);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    if (!this.fitted && this.bounds) this.whole();
    this.fitted = true;
    this.outlines?.children.forEach(({ material }) => material.resolution.set(width, height));
    this.draw();
  }

  draw() {
    if (!this.outlines) return; // no room has been put up yet
    this.renderer.setClearColor(styled("raised"));
    this.renderer.render(this.world, this.camera);
    this.names.render(this.world, this.camera);
    this.#unclutter();
  }

  /** Moves names off outlines and the names of objects with more attention, a line up or down; hides those that stay on one. */
  #unclutter() {
    const outlines = this.outlines.children.map((outline) => this.#placeOf(outline));
    const places = [];
    for (const slot of this.named) {
      const { tag, outlined } = this.objects[slot];
      tag.style.marginTop = "0";
      const { left, right, top, bottom, height } = tag.getBoundingClientRect();
      const taken = [...outlines.filter((_, number) => !outlined[number]), ...places];
      const offered = [0, -height, height].map((by) => ({ by, left, right, top: top + by, bottom: bottom + by }));
      const free = offered.find((at) => !taken.some((one) =>
        at.left < one.right && one.left < at.right && at.top < one.bottom && one.top < at.bottom));
      tag.style.visibility = free ? "visible" : "hidden";
      if (!free) continue;
      tag.style.marginTop = `${free.by}px`;
      places.push(free);
    }
  }
}

/** Gives back what the GPU holds of an object. */
function release(one) {
  one.material?.dispose();
  one.geometry?.dispose();
}

const boxCorners = ({ min, max }) => [0, 1, 2, 3, 4, 5, 6, 7].map((i) =>
  new Libraries.Vector3(i & 1 ? max.x : min.x, i & 2 ? max.y : min.y, i & 4 ? max.z : min.z));

/** The colour of `share`, 0 to 1, of the most attention: logarithmic, as a few objects hold nearly all of it. */
function rampColour(ramp, share) {
  const place = Math.max(0, 1 + Math.log10(Math.max(share, 1e-9)) / DECADES) * (ramp.length - 1);
  const low = Math.min(Math.floor(place), ramp.length - 2);
  const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const [from, to] = [channels(ramp[low]), channels(ramp[low + 1])];
  return `rgb(${from.map((value, i) => Math.round(value + (to[i] - value) * (place - low))).join(",")})`;
}
