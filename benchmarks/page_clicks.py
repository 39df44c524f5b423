"""How many clicks on the page until a picture comes up: ``python -m retr.benchmarks.page_clicks --index DIR``.

In chromium, on the page of a real server. Whoever looks asks with a row of the index and has another row in mind, of
the same label and another patient, which is not among the 24 hits of the first answer. A click marks: in turn the best
hit of that label ("more like this") and the best hit of another ("less like this"), until the row is shown or 20 clicks
are spent. Beside it: how often the same person would have clicked "Show more", 24 hits a click.

``--targets`` pairs are drawn, at most one a label in turn, by a fixed seed.
"""

from __future__ import annotations

import argparse
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from retr import Index
from retr.benchmarks.record import record

if TYPE_CHECKING:
    from playwright.sync_api import Page

SHOWN, MOST = 24, 20


def pairs(index: Index, label: str, count: int) -> list[tuple[str, str, int]]:
    """Return rows to ask with, the rows in mind, and at what rank these stand in the first answer."""
    rng = np.random.default_rng(0)
    table = index.table(["id", label]).to_pylist()
    by_label: dict[str, list[str]] = {}
    for row in table:
        by_label.setdefault(row[label], []).append(row["id"])
    labels = sorted(name for name, ids in by_label.items() if len(ids) >= 10)
    found: list[tuple[str, str, int]] = []
    for number in range(20 * count):
        ids = by_label[labels[number % len(labels)]]
        asked, target = rng.choice(ids, 2, replace=False).tolist()
        hits = index.search(id=asked, k=len(table), exclude_same=index.info()["group"])
        ranks = dict(zip(hits.ids, hits.ranks.tolist(), strict=True))
        if ranks.get(target, 0) > SHOWN:
            found.append((asked, target, ranks[target]))
        if len(found) == count:
            break
    return found


def clicks(page: Page, asked: str, target: str, labels: dict[str, str]) -> tuple[float, int]:
    """Return how many marks it takes until the row is shown, infinity for too many, and the pictures seen."""
    seen: set[str] = set()
    page.evaluate("id => import('./page/question.js').then(one => one.askWith('id', id))", asked)
    signs = ("More like this", "Less like this")
    for done in range(MOST + 1):
        page.wait_for_timeout(30)
        page.wait_for_selector("#answer[aria-busy=false]")
        shown = page.eval_on_selector_all(".hit .picture", "all => all.map(one => one.dataset.id)")
        seen.update(shown)
        if target in shown:
            return done, len(seen)
        right = done % 2 == 0
        fit = [row for row in shown if (labels[row] == labels[target]) == right]
        row, sign = (fit[0], signs[not right]) if fit else (shown[0], signs[labels[shown[0]] != labels[target]])
        page.locator(f'.picture[data-id="{row}"] ~ .do').get_by_title(sign).click()
    return np.inf, len(seen)


def measure(index: Index, label: str, count: int) -> dict[str, Any]:
    """Return the figures."""
    import uvicorn
    from playwright.sync_api import sync_playwright

    from retr.serve.app import create_app
    from retr.serve.settings import Settings

    wanted = pairs(index, label, count)
    labels = {row["id"]: row[label] for row in index.table(["id", label]).to_pylist()}
    server = uvicorn.Server(uvicorn.Config(create_app({"one": index.path}, Settings()), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--headless=new"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 900}, bypass_csp=True)
        page.set_default_timeout(60_000)
        # whose pictures they are is no part of it
        page.route("**/picture?*", lambda route: route.fulfill(status=404, body="{}", content_type="application/json"))
        page.goto(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/")
        page.wait_for_selector(".hit")
        page.locator("#patients input").first.check()
        found = [clicks(page, asked, target, labels) for asked, target, _ in wanted]
        browser.close()
    server.should_exit = True
    thread.join(10)
    marks = np.array([one for one, _ in found])
    more = np.array([np.ceil((rank - SHOWN) / SHOWN) for _, _, rank in wanted])

    def middle(values: Any) -> float | str:
        value = float(np.median(values))
        return value if np.isfinite(value) else f"more than {MOST}"

    return {
        "rows": len(index),
        "pairs": len(wanted),
        "marks_median": middle(marks),
        "marks_within_10": round(float((marks <= 10).mean()), 2),
        "marks_within_20": round(float((marks <= MOST).mean()), 2),
        "show_more_median": middle(more),
        "show_more_within_10": round(float((more <= 10).mean()), 2),
        "show_more_within_20": round(float((more <= MOST).mean()), 2),
        "marks_fewer": round(float((marks < more).mean()), 2),
        "pictures_seen_median": float(np.median([seen for _, seen in found])),
        "show_more_pictures_seen_median": float(np.median([rank for _, _, rank in wanted])),
    }


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True, help="an index with a column of patients as its group")
    parser.add_argument("--label", default="label")
    parser.add_argument("--targets", type=int, default=40)
    options = parser.parse_args()
    figures = measure(Index.open(options.index), options.label, options.targets)
    note = "`Show more` brings 24 pictures a click; a mark 24 of another answer, none of them seen before"
    command = f"python -m retr.benchmarks.page_clicks --index DIR --label {options.label} --targets {options.targets}"
    record("page_clicks", figures, command=command, note=note)


if __name__ == "__main__":
    main()
