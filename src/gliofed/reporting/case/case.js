"use strict";
(function () {
  const byId = (id) => document.getElementById(id);
  const config = JSON.parse(byId("config").textContent);
  const viewer = byId("viewer");
  const canvas = byId("canvas");
  const axes = { 0: 2, 1: 1, 2: 0 }; // a view's number to the axis that it goes along
  const everyView = 3;
  const letters = [["R", "L"], ["A", "P"], ["S", "I"]];
  const most = 255; // the brightest code of an image
  const loaded = new Map();
  let nv = null;
  let view = everyView;

  const base64 = (id) => byId(id).textContent.trim();
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

  function pressed(buttons, chosen) {
    for (const b of buttons) b.setAttribute("aria-pressed", String(b === chosen));
  }

  function setValueText(input, unit) {
    input.setAttribute("aria-valuetext", input.value + unit);
  }

  async function load(id, options) {
    if (!loaded.has(id)) {
      const made = await niivue.NVImage.loadFromBase64({ base64: base64(id), name: id + ".nii.gz", ...options });
      loaded.set(id, made);
    }
    return loaded.get(id);
  }

  async function image(id) {
    const made = await load(id, { colormap: "gray", cal_min: 0, cal_max: most });
    made.robust_min = 0; // what a double click goes back to
    made.robust_max = most;
    return made;
  }

  function coloured(name, stops) {
    const shown = stops.map(rgb);
    const rows = [shown[0], ...shown]; // the first place is what lies below the least value
    const places = [0, ...shown.map((_, i) => 1 + Math.round((254 * i) / (shown.length - 1)))];
    nv.addColormap(name, {
      R: rows.map((r) => r[0]), G: rows.map((r) => r[1]), B: rows.map((r) => r[2]),
      A: rows.map((_, i) => (i ? 255 : 0)), I: places, min: 0, max: 0,
    });
  }

  function put(images) {
    nv.volumes = images;
    nv.back = images[0];
    nv.overlays = images.slice(1);
    nv.updateGLVolume();
  }

  async function show(id) {
    put([await image(id), ...nv.volumes.slice(1)]);
    readWindow();
  }

  async function outline() {
    if (!config.outline) return;
    nv.loadDrawing(await load(config.outline, {}));
    const [red, green, blue] = rgb(config.line);
    nv.setDrawColormap({ R: [0, red], G: [0, green], B: [0, blue], A: [0, 255], I: [0, 1], labels: ["", "segmentation"] });
    drawOutline();
  }

  function drawOutline() {
    const shown = byId("outline").checked;
    setValueText(byId("outline-opacity"), " %");
    const inside = Math.max(Number(byId("outline-opacity").value) / 100, 0.001); // at 0 it draws no line either
    nv.drawRimOpacity = 1;
    nv.setDrawOpacity(shown ? inside : 0);
  }

  async function colour() {
    const chosen = config.overlays.find((o) => o.id === byId("overlay").value);
    legend(chosen);
    if (!chosen) {
      put(nv.volumes.slice(0, 1));
      return;
    }
    const [above, below] = chosen.parts;
    const made = await load(chosen.id, {
      colormap: above.colours, colormapNegative: below ? below.colours : "",
      cal_min: chosen.low, cal_max: chosen.high,
    });
    made.opacity = Number(byId("overlay-opacity").value) / 100;
    setValueText(byId("overlay-opacity"), " %");
    put([nv.volumes[0], made]);
  }

  function legend(chosen) {
    const parts = chosen ? chosen.parts : [];
    byId("colours").replaceChildren(...parts.flatMap((part) => {
      const caption = document.createElement("p");
      const scale = document.createElement("div");
      const bar = document.createElement("i");
      const number = (v) => String(Number(v.toPrecision(2)));
      caption.textContent = part.meaning.charAt(0).toUpperCase() + part.meaning.slice(1);
      bar.style.background = "linear-gradient(to right, " + config.colours[part.colours].join(", ") + ")";
      scale.className = "scale";
      scale.append(number(chosen.low), bar, number(chosen.high));
      return [caption, scale];
    }));
  }

  function setWindow() {
    const level = (most * Number(byId("level").value)) / 100;
    const half = (most * Number(byId("width").value)) / 200;
    nv.volumes[0].cal_min = level - half;
    nv.volumes[0].cal_max = level + half;
    nv.updateGLVolume();
    ["level", "width"].forEach((id) => setValueText(byId(id), " %"));
  }

  function readWindow() {
    const { cal_min: low, cal_max: high } = nv.volumes[0];
    byId("level").value = Math.round((50 * (low + high)) / most);
    byId("width").value = Math.round((100 * (high - low)) / most);
    ["level", "width"].forEach((id) => setValueText(byId(id), " %"));
  }

  function placed(location) {
    const parts = letters.map(([above, below], i) => {
      const mm = Number(location.mm[i].toFixed(1));
      return (mm < 0 ? below : above) + " " + Math.abs(mm).toFixed(1);
    });
    byId("place").textContent = parts.join(", ") + " mm";
    for (const axis of [0, 1, 2]) {
      const slider = byId("slice-" + axis);
      slider.value = location.vox[axis] + 1;
      slider.setAttribute("aria-valuetext", slider.value + " of " + slider.max);
    }
  }

  function step(axis, by) {
    const move = [0, 0, 0];
    move[axis] = by;
    nv.moveCrosshairInVox(...move);
  }

  function key(event) {
    const single = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
    const every = {
      ArrowUp: [2, 1], ArrowDown: [2, -1], ArrowRight: [0, -1], ArrowLeft: [0, 1], // right is the patient's left
      PageUp: [1, 10], PageDown: [1, -10],
    };
    event.stopImmediatePropagation(); // the viewer's own keys are not ours
    if (!(event.key in single) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (view === everyView) step(...every[event.key]);
    else step(axes[view], single[event.key]);
  }

  function cross() { // about two pixels wide, however large the slices are
    const grid = nv.volumes[0];
    const extent = Math.max(...[1, 2, 3].map((i) => grid.dimsRAS[i] * grid.pixDimsRAS[i]));
    const side = Math.min(canvas.clientWidth, canvas.clientHeight) / (view === everyView ? 2 : 1);
    nv.setCrosshairWidth(byId("crosshair").checked ? (1.6 * extent) / side : 0);
  }

  function look(number) {
    view = number;
    nv.setSliceType(view);
    cross();
  }

  function listen() {
    canvas.addEventListener("keydown", key, true);
    canvas.addEventListener("keyup", (event) => event.stopImmediatePropagation(), true);
    canvas.addEventListener("mousemove", (event) => { if (event.buttons) readWindow(); });
    const images = Array.from(viewer.querySelectorAll("[data-image]"));
    for (const b of images) b.addEventListener("click", () => { pressed(images, b); show(b.dataset.image); });
    const views = Array.from(viewer.querySelectorAll("[data-view]"));
    for (const b of views) b.addEventListener("click", () => { pressed(views, b); look(Number(b.dataset.view)); });
    for (const axis of [0, 1, 2]) {
      const slider = byId("slice-" + axis);
      slider.addEventListener("input", () => {
        step(axis, Number(slider.value) - 1 - nv.frac2vox(nv.scene.crosshairPos)[axis]);
      });
    }
    byId("crosshair").addEventListener("input", cross);
    window.addEventListener("resize", cross);
    for (const id of ["level", "width"]) byId(id).addEventListener("input", setWindow);
    byId("reset").addEventListener("click", () => {
      byId("level").value = 50;
      byId("width").value = 100;
      setWindow();
    });
    for (const id of config.outline ? ["outline", "outline-opacity"] : []) byId(id).addEventListener("input", drawOutline);
    for (const id of config.overlays.length ? ["overlay", "overlay-opacity"] : []) byId(id).addEventListener("input", colour);
  }

  async function begin() {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser has no WebGL 2");
    const drag = niivue.DRAG_MODE;
    nv = new niivue.Niivue({
      isRadiologicalConvention: true, sagittalNoseLeft: true, showAllOrientationMarkers: true,
      multiplanarShowRender: niivue.SHOW_RENDER.NEVER, fontColor: [1, 1, 1, 1], crosshairColor: [1, 0.85, 0.2, 0.9],
      crosshairWidthUnit: "mm", forceDevicePixelRatio: -1, crosshairGap: 8, multiplanarPadPixels: 12, dragAndDropEnabled: false, logLevel: "error", loadingText: "",
    });
    nv.setMouseEventConfig({
      leftButton: { primary: drag.crosshair, withShift: drag.windowing, withCtrl: drag.windowing },
      rightButton: drag.windowing, centerButton: drag.windowing,
    });
    nv.setTouchEventConfig({ singleTouch: drag.crosshair, doubleTouch: drag.windowing });
    viewer.hidden = false;
    await nv.attachToCanvas(canvas);
    nv.onIntensityChange = readWindow;
    nv.onLocationChange = placed;
    Object.entries(config.colours).forEach(([name, stops]) => coloured(name, stops));
    put([await image(config.images[0].id)]);
    await outline();
    look(everyView);
    nv.scene.crosshairPos = nv.mm2frac(config.start);
    nv.createOnLocationChange();
    nv.drawScene();
    readWindow();
    listen();
    viewer.classList.add("live");
    byId("no-viewer").hidden = true;
  }

  begin().catch((error) => {
    viewer.hidden = true;
    byId("no-viewer").textContent = "The slices below replace the viewer, which could not start: " + error.message + ".";
  });
})();
