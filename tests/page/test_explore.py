"""explore.py: what the page's server answers, and the page in a browser, click by click."""

import base64
import json
import shutil
import subprocess
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import explore
import main_unet
import page.server
from algo_functions import build_physics
from core.registry import LIGHT
from models.base import FirstImage
from page.content import build_server
from page.recorded import Frames
from page.scene import Bench, N
from recordings.file import Recording

NODE = shutil.which("node")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
TINY = [
    "--cr",
    "0.25",
    "--n",
    "64",
    "--width",
    "4",
    "--steps",
    "2",
    "--batch_size",
    "4",
    "--limit_train",
    "8",
    "--limit_val",
    "4",
]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    words = [*TINY, "--results", str(tmp_path_factory.mktemp("page"))]
    return main_unet.main(main_unet.parse(words))["kept"]


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Starts a server in this process; all are ended."""
    monkeypatch.chdir(tmp_path)
    servers = []

    def start(*words: str):
        server = build_server(explore.parse(["--port", "0", *words]))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(server, path: str, body: bytes | dict | None = None, **headers: str):
    """Status and content of an answer."""
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    connection.request("GET" if body is None else "POST", path, data, headers)
    reply = connection.getresponse()
    content = reply.read()
    is_json = reply.headers["Content-Type"] == "application/json"
    return reply.status, json.loads(content) if is_json else content.decode()


def request(size: int = 64, **changes) -> dict:
    picture = np.random.default_rng(0).integers(0, 256, size * size, dtype=np.uint8)
    values = {"size": size, "ratio": 0.25, "ordering": "xy", "photons": None, "rate": 1000}
    return values | {"picture": base64.b64encode(picture.tobytes()).decode()} | changes


def test_estimates_of_a_picture_come_with_their_scores_and_errors(serve, network):
    server = serve("--checkpoint", network)
    status, shown = ask(server, "/restore", request(128))
    assert status == 200 and shown["shots"] == 4 * 1024 and shown["seconds"] == 4 * 1024 / 1000
    names = [one["name"] for one in shown["estimates"]]
    assert names[:3] == ["back-projection", "LMMSE", "TV"] and names[3].startswith("UNET_cr_0.25")
    for one in shown["estimates"]:
        image = np.frombuffer(base64.b64decode(one["image"]["bytes"]), np.uint8)
        truth = np.frombuffer(base64.b64decode(shown["picture"]["bytes"]), np.uint8)
        error = ((image.astype(float) - truth) / 255).reshape(128, 128)
        assert -10 * np.log10((error**2).mean()) == pytest.approx(one["psnr"], abs=0.6)
        drawn = np.frombuffer(base64.b64decode(one["error"]["bytes"]), np.uint8).reshape(128, 128)
        seen = image.reshape(128, 128)  # which is cut off at 0 and 1, and the error is not
        inside = (np.abs(error) < 0.2) & (seen > 0) & (seen < 255)
        assert np.abs(drawn / 255 - 4 * np.abs(error))[inside].max() < 0.03
    assert len(shown["patterns"]) == 8 and shown["mask"]["w"] == N


def test_a_network_of_another_ordering_or_of_fewer_values_is_not_shown(serve, network):
    server = serve("--checkpoint", network)
    for changes in ({"ordering": "zig_zag"}, {"ratio": 0.5}):
        estimates = ask(server, "/restore", request(**changes))[1]["estimates"]
        assert not [one for one in estimates if one["name"].startswith("UNET")]
    noisy = ask(server, "/restore", request(ratio=0.1, photons=20))[1]["estimates"]
    assert noisy[-1]["note"] == "25 %, trained with no noise"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": 65}, "size: choose from 64, 128, 256"),
        ({"size": "64"}, "size: choose from"),
        ({"ratio": [0.25]}, "ratio: choose from"),
        ({"ordering": "../../etc/passwd"}, "ordering: choose from xy"),
        ({"photons": True}, "photons: choose from none, 50"),
        ({"rate": 0}, "rate: a number from 1 to 1e"),
        ({"rate": float("nan")}, "rate: a number"),
        ({"picture": "AAAA"}, "picture: 64 x 64 bytes are needed, and 3 came"),
        ({"picture": "*"}, "picture: the bytes of an image are needed"),
        ({"picture": 7}, "picture: the bytes of an image are needed"),
    ],
)
def test_wrong_requests_are_answered_with_a_sentence(serve, network, changes, sentence):
    status, content = ask(serve("--checkpoint", network), "/restore", request() | changes)
    assert status == 400 and content["error"].startswith(sentence)


def test_hostile_requests_are_refused_and_the_page_goes_on(serve, network):
    server = serve("--checkpoint", network)
    assert ask(server, "/restore", b"[" * 100_000)[0] == 400
    assert ask(server, "/restore", b"\xff\xfe")[1]["error"] == "the request is not JSON"
    assert ask(server, "/restore", b"[]")[0] == 400
    assert ask(server, "/restore", b"{}", **{"Content-Length": "99999999"})[0] == 413
    assert ask(server, "/restore", b"{}", **{"Content-Length": "-1"})[0] == 413
    assert ask(server, "/options", {}, Host="evil.example:80")[0] == 403
    assert ask(server, "/options", {}, Origin="http://evil.example")[0] == 403
    for path in ("/../core/own.py", "/report/../../secret", "/page.py", "/%2e%2e/explore.py"):
        assert ask(server, path)[0] == 404
    assert ask(server, "/nothing", {})[0] == 404
    assert ask(server, "/restore", request())[0] == 200


def test_it_listens_on_this_machine_alone_and_loads_nothing_from_elsewhere(serve, network):
    server = serve("--checkpoint", network)
    assert server.server_address[0] == "127.0.0.1"
    for path in ("/", "/page.js", "/page.css"):
        status, text = ask(server, path)
        assert status == 200 and "http" not in text.replace("http-equiv", ""), path


def test_reports_of_studies_are_shown(serve, network, tmp_path):
    report = tmp_path / "results" / "sweeps" / "mine" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<p>the answer</p>")
    server = serve("--checkpoint", network)
    assert ask(server, "/options", {})[1]["reports"] == ["mine"]
    assert ask(server, "/report/mine") == (200, "<p>the answer</p>")


def test_the_frames_of_a_recording_are_restored(serve, laboratory):
    student = laboratory / "trained_models" / "UNET_cr_0.125_photons_20.pth"
    server = serve("--recording", str(laboratory / "lab.npz"), "--checkpoint", str(student))
    frames = ask(server, "/options", {})[1]["frames"]
    status, shown = ask(server, "/frame", {"frame": len(frames) - 1})
    assert status == 200 and shown["name"] == frames[-1]
    names = [one["name"] for one in shown["estimates"]]
    assert names == ["all recorded values", "UNET_cr_0.125_photons_20, 32 values"]
    for wrong in (len(frames), -1, "0", None, True):
        assert ask(server, "/frame", {"frame": wrong})[1]["error"].startswith("frame: a number")


@pytest.mark.parametrize(
    ("noise", "photons", "note"),
    [
        ({"photons": [2, 50]}, 20.0, "10 %, trained with 2 to 50 photons a pattern"),
        ({"photons": 20.0}, 20.0, "10 %"),
        ({"photons": 20.0}, 5.0, "10 %, trained with 20 photons a pattern"),
        ({"noise": 0.3}, None, "10 %, trained with noise of 0.3 on every value"),
        ({"awgn_snr": 20.0}, None, "10 %, trained with noise at 20 dB"),
        ({}, None, "10 %"),
        ({}, 5.0, "10 %, trained with no noise"),
    ],
)
def test_a_note_says_with_which_noise_a_network_was_trained(noise, photons, note):
    config = {"name": "spc", "n": N, "c": 1, "cr": 0.1, "ordering": "xy", "x0": "adjoint"}
    physics = build_physics(config | {"awgn_snr": None, **LIGHT} | noise)
    bench = Bench({}, list)
    bench.checkpoints = {"mine": SimpleNamespace(physics=physics, network=FirstImage(1))}
    x = torch.rand(1, 1, N, N, generator=torch.Generator().manual_seed(0))
    shown = bench.of_networks(x, x[0], 0.1, "xy", photons)
    assert [one["note"] for one in shown] == [note]


def test_a_recording_of_colours_is_shown_in_colours():
    config = {"name": "spc", "n": 8, "c": 3, "cr": 1.0, "ordering": "xy", "x0": "adjoint"}
    camera = build_physics(config | {"awgn_snr": None, **LIGHT})
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    x = torch.from_numpy(image / 255).float().movedim(-1, 0)[None]
    values, variance = camera.values(camera.measure(x)), torch.zeros(1, 3, 1)
    split = torch.full((1,), 2, dtype=torch.uint8)
    recording = Recording(camera.config, camera.patterns, values, variance, split, ("red",))
    shown = Frames(recording, {}).show({"frame": 0})["estimates"][0]["image"]
    assert shown["c"] == 3 and base64.b64decode(shown["bytes"]) == image.tobytes()


SCREEN = """
const done = [];
class Canvas {
  getContext() {
    return {
      set fillStyle(value) { done.push(["fillStyle", value]); },
      fillRect: (...place) => done.push(["fillRect", ...place]),
      drawImage: () => done.push(["drawImage"]),
      putImageData: (image) => done.push(["putImageData", ...image.data]),
    };
  }
}
globalThis.ImageData = class { constructor(w, h) { this.data = new Uint8Array(4 * w * h); } };
globalThis.document = { createElement: () => new Canvas(), getElementById: () => ({ value: "8" }) };
globalThis.createImageBitmap = async () => ({ width: 3, height: 2 });
globalThis.fetch = async () => { throw new Error("no server"); };
require("vm").runInThisContext(require("fs").readFileSync(process.argv[1], "utf8"));
for (const [c, bytes] of [[1, "ab"], [3, "abcdef"]])
  draw(new Canvas(), { h: 1, w: 2, c, bytes: btoa(bytes) });
take({ name: "a.png" }).then(() => console.log(JSON.stringify(done)));
"""


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_colours_are_drawn_and_transparent_pixels_lie_over_white():
    script = Path(page.server.__file__).with_name("page.js")
    done = subprocess.run([NODE, "-e", SCREEN, str(script)], capture_output=True, check=True)
    steps = json.loads(done.stdout)
    assert steps[:5] == [
        ["putImageData", 97, 97, 97, 255, 98, 98, 98, 255],
        ["putImageData", 97, 98, 99, 255, 100, 101, 102, 255],
        ["fillStyle", "white"],
        ["fillRect", 0, 0, 3, 2],
        ["drawImage"],
    ]


@pytest.fixture
def browser(tmp_path):
    if not (BROWSER and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def wait_for(condition, seconds: float = 20):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the page did not get there in time"
        time.sleep(0.05)
    return value


def test_a_visitor_clicks_through_the_page(serve, network, browser, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    def text(name: str) -> str:
        return browser.find_element(By.ID, name).text

    browser.set_window_size(400, 800)
    browser.get(serve("--checkpoint", network).address)
    wait_for(lambda: "409 values of 4,096 pixels" in text("facts"))
    assert browser.execute_script("return document.body.scrollWidth <= window.innerWidth")
    Select(browser.find_element(By.ID, "ratio")).select_by_visible_text("25 %")
    wait_for(lambda: "1,024 values" in text("facts"))
    for size in ("128", "64") * 10:  # faster than they can be answered
        Select(browser.find_element(By.ID, "size")).select_by_visible_text(size)
    wait_for(lambda: "1,024 values of 4,096 pixels" in text("facts"))
    assert "UNET_cr_0.25" in text("estimates") and not text("message")
    rate = browser.find_element(By.ID, "rate")
    rate.clear()
    rate.send_keys("0\t")
    wait_for(lambda: "rate: a number from 1" in text("message"))
    (tmp_path / "not_a_picture.png").write_bytes(b"GIF89a" + bytes(40))
    upload = browser.find_element(By.ID, "file")
    upload.send_keys(str(tmp_path / "not_a_picture.png"))
    wait_for(lambda: "not_a_picture.png is not a picture" in text("message"))
    browser.find_element(By.ID, "tab-study").click()
    assert "There is no report yet" in text("study-message")
    browser.find_element(By.ID, "tab-recording").click()
    assert "--recording lab.npz" in text("recording-message")
    assert not [
        line
        for line in browser.get_log("browser")
        if line["level"] == "SEVERE" and "400" not in line["message"]
    ]
