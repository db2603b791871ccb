// The 3D view of one asset: splats or a mesh, which the pointer turns. Where WebGL fails, the picture stays.
// Drawing goes on for this long and this many pictures after a change: sorting the splats takes some.
const AWAKE_MS = 1500;
const AWAKE_FRAMES = 20;
const SHOWN_AFTER = 14; // until then the picture stays

function canDraw3D() {
  try {
    const canvas = document.createElement("canvas");
    return Boolean(canvas.getContext("webgl2"));
  } catch {
    return false;
  }
}

function toLinear(geometry) {
  const found = geometry.attributes.color;
  if (!found) return;
  const colour = new viewerParts.Color();
  const values = new Float32Array(found.count * 3);
  for (let i = 0; i < found.count; i += 1) {
    colour.setRGB(found.getX(i), found.getY(i), found.getZ(i)).convertSRGBToLinear().toArray(values, 3 * i);
  }
  geometry.setAttribute("color", new viewerParts.Float32BufferAttribute(values, 3));
}

class View3D {
  // rig: { elevation_deg, distance, fovy_deg } of the evaluation cameras.
  constructor(media, rig, alt) {
    this.media = media;
    this.rig = { elevation_deg: 15, distance: 2.65, fovy_deg: 42.5, ...rig };
    this.alt = alt;
    this.onMove = () => {};
    this.closed = false;
    this.lost = false;
    this.count = 0; // splats, or vertices of a mesh
    this.until = 0;
    this.note = element("span", { className: "note", role: "status" });
    this.box = element("div", { className: "view3d" });
    if (has(media, "p")) this.box.append(picture(media, alt));
    this.box.append(this.note);
  }

  async open() {
    this.note.textContent = "Loading …";
    try {
      if (!canDraw3D()) throw new Error("this browser has no WebGL 2");
      await script("library/viewer.js");
      const kind = has(this.media, "s") ? "splat" : "mesh";
      const bytes = await assetBytes(this.media, `${kind}.js`);
      if (this.closed) return;
      this.stage();
      await this.add(kind, bytes);
      if (!this.renderer) return; // closed or lost in the meantime
      this.ready = true;
      this.wake();
    } catch (error) {
      if (!this.lost) this.fail(error.message);
    }
  }

  // The picture below stays.
  fail(why) {
    this.stop();
    this.isShown = false;
    this.note.textContent = `No 3D view: ${why}.`;
  }

  stage() {
    const p = viewerParts;
    this.renderer = new p.WebGLRenderer({ antialias: false, preserveDrawingBuffer: true });
    this.renderer.setClearColor(0xffffff, 1);
    this.renderer.setPixelRatio(Math.min(2, devicePixelRatio));
    this.scene = new p.Scene();
    this.camera = new p.PerspectiveCamera(this.rig.fovy_deg, 1, 0.05, 100);
    this.camera.up.set(0, 0, 1);
    const azimuth = (this.media.start ?? 0) * 2 * Math.PI;
    const elevation = (this.rig.elevation_deg * Math.PI) / 180;
    this.camera.position.set(Math.cos(azimuth) * Math.cos(elevation), Math.sin(azimuth) * Math.cos(elevation), Math.sin(elevation))
      .multiplyScalar(this.rig.distance);
    const made = this.renderer.domElement;
    made.style.visibility = "hidden";
    made.tabIndex = 0;
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", `3D view: ${this.alt}. Drag or use the arrow keys to turn, scroll or + and - to zoom.`);
    this.controls = new p.OrbitControls(this.camera, made);
    this.controls.enablePan = false;
    this.controls.minDistance = this.rig.distance * 0.25;
    this.controls.maxDistance = this.rig.distance * 3;
    this.controls.addEventListener("change", () => { this.wake(); if (!this.led) this.onMove(this); });
    made.addEventListener("keydown", (event) => this.key(event));
    made.addEventListener("webglcontextlost", () => { // a phone takes it from pages in the background
      if (this.renderer?.domElement !== made) return; // by `stop`
      this.lost = true;
      this.fail("the browser took its graphics memory back; reload the page to try again");
    });
    this.box.append(made);
    this.size = new ResizeObserver(() => this.resize());
    this.size.observe(this.box);
    this.resize();
  }

  async add(kind, bytes) {
    const p = viewerParts;
    if (kind === "splat") {
      this.scene.add(new p.SparkRenderer({ renderer: this.renderer }));
      const splats = new p.SplatMesh({ fileBytes: bytes, fileType: "splat", fileName: "asset.splat" });
      await splats.initialized;
      this.count = splats.packedSplats.numSplats;
      this.scene.add(splats);
      return;
    }
    const loader = new p.GLTFLoader();
    const { scene, asset: about } = await loader.parseAsync(bytes.buffer, "");
    scene.quaternion.set(0.5, 0.5, 0.5, 0.5); // glTF has y up and the front at +z, the world z up and the front at +x
    scene.traverse((part) => { // its colours have the light of the scene in them already
      if (!part.isMesh) return;
      this.count += part.geometry.attributes.position.count;
      const { map, color } = part.material;
      if (/trimesh/.test(about.generator)) toLinear(part.geometry); // it writes them as in images; glTF says linear
      part.material = new p.MeshBasicMaterial({ map, color, vertexColors: "color" in part.geometry.attributes, side: p.DoubleSide });
    });
    const box = new p.Box3().setFromObject(scene);
    const size = box.getSize(new p.Vector3()).length() / 2;
    if (size > 3 || size < 0.2) { // an external asset in its own units
      scene.position.sub(box.getCenter(new p.Vector3()).multiplyScalar(1 / size));
      scene.scale.setScalar(1 / size);
    }
    this.scene.add(scene);
  }

  resize() {
    const side = Math.max(64, this.box.clientWidth);
    this.renderer.setSize(side, side, false); // which empties it
    if (this.ready) this.renderer.render(this.scene, this.camera);
    this.wake();
  }

  wake() {
    this.until = performance.now() + AWAKE_MS;
    this.frames = AWAKE_FRAMES;
    if (this.drawing) return;
    this.drawing = true;
    const frame = () => {
      if (this.closed || !this.renderer || (performance.now() > this.until && this.frames <= 0)) {
        this.drawing = false;
        return;
      }
      this.frames -= 1;
      this.renderer.render(this.scene, this.camera);
      if (this.ready && this.frames <= AWAKE_FRAMES - SHOWN_AFTER && !this.isShown) this.show();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  show() {
    this.isShown = true;
    this.renderer.domElement.style.visibility = "";
    this.note.textContent = "";
  }

  // Turn by angles in radians, zoom by a factor.
  orbit(sideways, up, zoom = 1) {
    const { position } = this.camera;
    const distance = position.length() * zoom;
    const azimuth = Math.atan2(position.y, position.x) + sideways;
    const elevation = Math.min(1.5, Math.max(-1.5, Math.asin(position.z / position.length()) + up));
    position.set(Math.cos(azimuth) * Math.cos(elevation), Math.sin(azimuth) * Math.cos(elevation), Math.sin(elevation))
      .multiplyScalar(Math.min(this.controls.maxDistance, Math.max(this.controls.minDistance, distance)));
    this.controls.update();
  }

  key(event) {
    const steps = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1],
      "+": [0, 0, 0.9], "-": [0, 0, 1.11] };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.orbit(...steps[event.key]);
  }

  // Take the camera of another view, relative to where each began: the sides that fit the truth match.
  follow(other) {
    if (!this.controls || !other.controls) return;
    this.led = true;
    const turn = ((this.media.start ?? 0) - (other.media.start ?? 0)) * 2 * Math.PI;
    const { x, y, z } = other.camera.position;
    this.camera.position.set(x * Math.cos(turn) - y * Math.sin(turn), x * Math.sin(turn) + y * Math.cos(turn), z);
    this.controls.update();
    this.led = false;
    this.wake();
  }

  stop() {
    this.size?.disconnect();
    this.controls?.dispose();
    this.renderer?.domElement.remove();
    this.renderer?.dispose();
    if (!this.lost) this.renderer?.forceContextLoss();
    this.ready = false;
    this.renderer = null;
    this.controls = null;
  }

  close() {
    this.closed = true;
    this.stop();
  }
}
