"""How long a redraw of the page's map takes its script: ``python -m retr.benchmarks.page_map``.

``--points`` made-up points (100,000) go to the page of a real server in place of its own map, in chromium, 1280 by 900
pixels. The map is moved, magnified and drawn around; of each redraw the page's own measure is taken, from the first
line of drawing to the last call of the canvas, without what the compositor does afterwards.
"""

from __future__ import annotations

import argparse
import json
import shutil
import threading
import time
from typing import Any

import numpy as np

from retr.benchmarks.record import record

_MOVES = 60


def measure(points: int) -> list[float]:
    """Return the milliseconds of each redraw of a map of so many points."""
    import uvicorn
    from playwright.sync_api import sync_playwright

    from retr.sample import sample_index
    from retr.serve.app import create_app
    from retr.serve.settings import Settings

    rng = np.random.default_rng(0)
    centres = rng.normal(0, 8, (30, 2))
    xy = (centres[rng.integers(0, 30, points)] + rng.normal(0, 1, (points, 2))).astype("<f4")
    codes = rng.integers(0, 12, points).tolist()
    column: dict[str, Any] = {"index": "one", "column": "", "numbers": [], "kind": "values"}
    index = sample_index()
    app = create_app({"one": index.path}, Settings(), {"encoder": index.encoder})
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--headless=new"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        said = {"x-retr-version": "1"}
        page.route("**/map", lambda route: route.fulfill(body=xy.tobytes(), headers=said))

        def answer(route: Any) -> None:
            ids = "name=id" in route.request.url
            own = {"kind": "ids", "values": [f"row {n}" for n in range(points)], "codes": []}
            held = own if ids else {"values": [f"group {n}" for n in range(12)], "codes": codes}
            route.fulfill(body=json.dumps(column | {"version": 1} | held), content_type="application/json")

        page.route("**/map/column*", answer)
        page.goto(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/")
        page.wait_for_selector(".hit")
        page.click("#map-open")
        page.wait_for_selector("#map .legend li")
        page.wait_for_timeout(500)
        page.evaluate("performance.clearMeasures()")
        for move in range(_MOVES):
            page.keyboard.press(("ArrowLeft", "ArrowUp", "+", "-", "ArrowRight", "ArrowDown")[move % 6])
            page.wait_for_timeout(40)
        found: list[float] = page.evaluate("performance.getEntriesByName('map redraw').map(one => one.duration)")
        browser.close()
    server.should_exit = True
    thread.join(10)
    return found


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000)
    options = parser.parse_args()
    found = measure(options.points)
    figures = {
        "points": options.points,
        "redraws": len(found),
        "median_ms": round(float(np.median(found)), 2),
        "p95_ms": round(float(np.quantile(found, 0.95)), 2),
        "most_ms": round(max(found), 2),
    }
    record("page_map", figures)


if __name__ == "__main__":
    main()
