"use strict";
const $ = (id) => document.getElementById(id);
let options = null, picture = null;   // the picture: a canvas of any size

// ---------------------------------------------------------------- the server

async function ask(path, request) {
  const reply = await fetch(path, { method: "POST", body: JSON.stringify(request) });
  const content = await reply.json();
  if (!reply.ok) throw new Error(content.error);
  return content;
}

// One request at a time: while it runs, only the latest of the next ones is kept.
function latest(work) {
  let busy = false, waiting = null;
  return async function run(...values) {
    if (busy) { waiting = values; return; }
    busy = true;
    try { await work(...values); } finally {
      busy = false;
      if (waiting) { const next = waiting; waiting = null; run(...next); }
    }
  };
}

// ---------------------------------------------------------------- drawing

function draw(canvas, image) {
  const bytes = atob(image.bytes), data = new ImageData(image.w, image.h);
  for (let i = 0; i < image.w * image.h; i++) {
    const value = (channel) => bytes.charCodeAt(image.c * i + Math.min(channel, image.c - 1));
    data.data.set([value(0), value(1), value(2), 255], 4 * i);
  }
  canvas.width = image.w;
  canvas.height = image.h;
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

function figure(image, title, note) {
  const box = document.createElement("figure"), caption = document.createElement("figcaption");
  const name = document.createElement("b");
  name.textContent = title;
  caption.append(name, note);
  box.append(draw(document.createElement("canvas"), image), caption);
  return box;
}

function choose(select, values, text) {
  select.replaceChildren(...values.map((value) => {
    const item = document.createElement("option");
    item.value = JSON.stringify(value);
    item.textContent = text(value);
    return item;
  }));
}
const chosen = (id) => JSON.parse($(id).value);

// ---------------------------------------------------------------- a picture

// The middle square of the picture, in gray, one byte a pixel.
function bytesOf(size) {
  const side = Math.min(picture.width, picture.height), canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (picture.width - side) / 2, (picture.height - side) / 2, side, side, 0, 0, size, size);
  const data = context.getImageData(0, 0, size, size).data;
  let text = "";
  for (let i = 0; i < data.length; i += 4)
    text += String.fromCharCode(Math.round(0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2]));
  return btoa(text);
}

const restore = latest(async () => {
  const size = chosen("size"), began = performance.now();
  try {
    const shown = await ask("/restore", {
      size, ratio: chosen("ratio"), ordering: chosen("ordering"), photons: chosen("photons"),
      rate: Number($("rate").value), picture: bytesOf(size),
    });
    $("message").textContent = "";
    const boxes = [figure(shown.picture, "picture", `${size} x ${size} pixels`)];
    for (const one of shown.estimates) {
      const box = figure(one.image, one.name, one.note);
      const scores = document.createElement("div");
      scores.textContent = `${one.psnr.toFixed(2)} dB, SSIM ${one.ssim.toFixed(3)}; error x 4:`;
      box.querySelector("figcaption").append(scores);
      box.append(draw(document.createElement("canvas"), one.error));
      boxes.push(box);
    }
    $("estimates").replaceChildren(...boxes);
    draw($("mask"), shown.mask);
    $("patterns").replaceChildren(...shown.patterns.map((one) => draw(document.createElement("canvas"), one)));
    const seconds = shown.seconds < 1 ? `${(1000 * shown.seconds).toFixed(0)} ms` : `${shown.seconds.toFixed(1)} s`;
    const took = Math.round(performance.now() - began);
    $("facts").textContent = `${shown.shots.toLocaleString("en")} values of ${(size * size).toLocaleString("en")} pixels, ` +
      `${seconds} at this rate with one exposure a pattern, twice that with its opposite. Restored in ${took} ms.`;
    document.body.dataset.took = took;
  } catch (error) {
    $("message").textContent = error.message;
  }
});

async function take(file) {
  try {
    const image = await createImageBitmap(file);
    picture = document.createElement("canvas");
    const scale = Math.min(1, 1024 / Math.max(image.width, image.height));
    picture.width = Math.max(1, Math.round(image.width * scale));
    picture.height = Math.max(1, Math.round(image.height * scale));
    const context = picture.getContext("2d");
    context.fillStyle = "white";  // behind transparent pixels
    context.fillRect(0, 0, picture.width, picture.height);
    context.drawImage(image, 0, 0, picture.width, picture.height);
    restore();
  } catch {
    $("message").textContent = `${file.name} is not a picture that this browser can open.`;
  }
}

const sample = latest(async () => {
  try {
    picture = draw(document.createElement("canvas"), await ask("/sample", { name: chosen("sample") }));
    restore();
  } catch (error) {
    $("message").textContent = error.message;
  }
});

// ---------------------------------------------------------------- studies and recordings

function showReport() {
  const name = chosen("report");
  $("report-frame").hidden = !name;
  if (name) $("report-frame").src = "/report/" + encodeURIComponent(name);
}

const showFrame = latest(async () => {
  try {
    const shown = await ask("/frame", { frame: Number($("frame").value) });
    $("recording-message").textContent = "";
    $("frames").replaceChildren(...shown.estimates.map((one) => figure(one.image, one.name, shown.name)));
  } catch (error) {
    $("recording-message").textContent = error.message;
  }
});

function select(tab) {
  for (const name of ["scene", "study", "recording"]) {
    $(name).hidden = name !== tab;
    $("tab-" + name).setAttribute("aria-selected", String(name === tab));
  }
}

async function start() {
  options = await ask("/options", {});
  choose($("sample"), options.samples, String);
  choose($("size"), options.sizes, String);
  choose($("ratio"), options.ratios, (ratio) => `${100 * ratio} %`);
  choose($("ordering"), options.orderings, String);
  choose($("photons"), options.photons, (count) => (count === null ? "no noise" : String(count)));
  choose($("report"), options.reports, String);
  $("ratio").value = JSON.stringify(0.1);
  for (const id of ["size", "ratio", "ordering", "photons", "rate"]) $(id).addEventListener("change", restore);
  $("sample").addEventListener("change", sample);
  $("file").addEventListener("change", () => { if ($("file").files.length) take($("file").files[0]); });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  document.addEventListener("dragleave", () => document.body.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
  for (const tab of ["scene", "study", "recording"]) $("tab-" + tab).addEventListener("click", () => select(tab));
  $("report").addEventListener("change", showReport);
  if (options.reports.length) showReport();
  else $("study-message").textContent = "There is no report yet: python sweep.py studies/onsite.yml --tiny makes one.";
  $("frame").addEventListener("input", showFrame);
  if (options.frames) {
    $("frame").max = options.frames.length - 1;
    showFrame();
  } else {
    $("frame").disabled = true;
    $("recording-message").textContent = "Start the page with --recording lab.npz to see its frames.";
  }
  await sample();
}

start().catch((error) => { $("message").textContent = error.message; });
