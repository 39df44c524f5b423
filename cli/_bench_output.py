"""Print the results of ``retr bench``: measured figures next to the published ones, with protocol and data of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retr.cli._output import Output

SHOWN = 5


def show_retizero(result: dict[str, Any], out: Output) -> None:
    """Print RetiZero's tables."""
    data, published, strict = result["data"], result["published_protocol"], result["strict"]
    clustered = published["clustered"] or {"precision": {}, "any_hit": {}}
    paper = result["paper"]
    show_data(data, out)
    out.line(f"encoder {result['encoder']['name']}, {result['encoder']['embedding']}")
    rows = [
        {
            "retrieval": f"{name}@{k}",
            "published, clustered": clustered[name].get(k),
            "published, no clusters": published[name].get(k),
            "strict": strict[name][k],
            "strict, 95 %": _interval(result["intervals"]["strict"][name][k]),
            **_across(result["other_sets"], name, k),
            "paper EYE-15": paper["retrieval_top5"]["EYE-15"] if k == "5" else None,
            "paper EYE-52": paper["retrieval_top5"]["EYE-52"] if k == "5" else None,
        }
        for name in ("precision", "any_hit")
        for k in ("1", "3", "5")
    ]
    out.rows(rows, title="the paper gives one Top-5 and does not say which of the two definitions it is")
    if "reason" in published:
        out.line(f"the published columns are empty: {published['reason']}")
    across = result["other_sets"]
    if across.get("images"):
        out.line(
            f"strict, other sets: the query's own set is left out too; {across['images']} of {across['of_images']} "
            f"images have their class in another set ({', '.join(across['classes'])})"
        )
    elif "map" in data:
        out.line(f"strict, other sets: empty, {across['reason']}")
    _show_zero_shot(result["zero_shot"], paper, out)
    _show_steps(result, out)
    out.line(f"paper: {paper['source']}; {paper['protocol']}. {paper['data']}.")
    verdict = "This is the paper's data" if result["data_is_the_papers"] else "This is not the paper's data"
    out.line(f"{verdict}: {result['data_is_the_papers_because']}.")
    if not result["data_is_the_papers"]:
        out.line("The paper's numbers are shown for orientation; they cannot be compared with this run's.")


def _show_zero_shot(zero: dict[str, Any], paper: dict[str, Any], out: Output) -> None:
    """Print how often the class is among the first by its words."""
    out.line("")
    out.rows(
        [
            {
                "zero-shot": f"top-{k}",
                "this run": zero[k],
                "95 %": _interval(zero["intervals"][k]) if zero[k] is not None else "",
                "paper EYE-15": paper["zero_shot_top5"]["EYE-15"] if k == "5" else None,
                "paper EYE-52": paper["zero_shot_top5"]["EYE-52"] if k == "5" else None,
            }
            for k in ("1", "3", "5")
        ],
        title=f"no zero-shot: {zero['reason']}" if "reason" in zero else "",
    )
    if "classes_asked" in zero:
        certain = [f"top-{k}" for k in ("1", "3", "5") if int(k) >= zero["classes_asked"]]
        empty = f"; {', '.join(certain)} would be 1 whatever the encoder" if certain else ""
        out.line(f"zero-shot among the {zero['classes_asked']} classes of {zero['label_set']!r}{empty}")
    if zero.get("not_in_the_label_set"):
        out.line(
            f"zero-shot is of {zero['images']} of {zero['of_images']} images: "
            f"the label set {zero['label_set']!r} does not know {_names(zero['not_in_the_label_set'])}"
        )


def _show_steps(result: dict[str, Any], out: Output) -> None:
    """Print what each step from the published protocol to the strict one changes, and why."""
    published = result["published_protocol"]
    out.line("")
    out.rows(
        [
            {
                "from published to strict": step["is"],
                "precision@1": step["precision"]["1"],
                "precision@5": step["precision"]["5"],
                "any_hit@5": step["any_hit"]["5"],
            }
            for step in result["steps"]
        ]
    )
    first, last = result["steps"][0]["precision"]["1"], result["steps"][-1]["precision"]["1"]
    near = result["near_duplicates"]
    units = "patients" if result["data"]["group"] else "groups"
    out.line("")
    if "reason" not in published:
        higher = f"{abs(first - last):.4f} {'higher' if first > last else 'lower'} as published than strictly"
        out.line(f"precision@1 is {higher if first != last else 'the same as published and strictly'}.")
    out.line(
        f"near-duplicates (cosine of at least {near['cosine_at_least']}): {near['pairs']} pairs, "
        f"{near['of_different_groups']} of different {units}, {near['of_different_classes']} of different classes"
    )


def show_cells(result: dict[str, Any], out: Output) -> None:
    """Print the cells of a protocol that names them itself, and the published ones."""
    show_data(result["data"], out)
    out.line(f"vectors: {result['encoder']['embedding']}")
    if result.get("names_not_asked_about"):
        out.line(f"other findings, not asked about: {_names(result['names_not_asked_about'])}")
    rows = []
    for name, values in result["measured"].items():
        cells = {key: _cell(value) for key, value in values.items()}
        rows.append({f"this run ({result['encoder']['name']})": name, **cells})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out.rows(rows, columns)
    reasons = {
        f"{key} is empty: {value['reason']}": None
        for values in result["measured"].values()
        for key, value in values.items()
        if isinstance(value, dict) and "reason" in value
    }
    for reason in reasons:
        out.line(reason)
    out.line("")
    out.rows(result["published"], ["cell", "value", "source"], title="published, not measured here")
    out.line(f"published protocol: {result['published_protocol']}")
    out.line(f"The published cells cannot be compared with this run's: {result['data_is_the_papers_because']}.")


def show_data(data: dict[str, Any], out: Output) -> None:
    """Print what the data is, and what of it was left out and why."""
    patients = f"{data['groups']} patients" if data["group"] else "no column says whose they are (--group)"
    alone = data["images_without_group"]
    if data["group"] and alone:
        patients += f" ({alone} images of no known patient, each taken for one)"
    out.line(f"{data['folder']}: {data['images']} images, {len(data['classes'])} classes, {patients}")
    for name, one in data.get("sets", {}).items():
        classes = "; ".join(f"{target} {count}" for target, count in one["pool"].items())
        out.line(f"  {name} ({one['title']}): {one['images']} images: {classes}")
        if one["unmapped"]:
            unmapped = "; ".join(f"{left['name']!r} {left['images']} ({left['reason']})" for left in one["unmapped"])
            out.line(f"  {name}, not mapped: {sum(left['images'] for left in one['unmapped'])} images: {unmapped}")
        for note in one["notes"]:
            out.line(f"  {name}: {note}")
    for note in data.get("map", {}).get("notes", ()):
        out.line(f"map {data['map']['name']!r}: {note}")
    left_out = data["left_out"]
    if left_out["count"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out["reasons"].items())
        shown = "; ".join(f"{one['path']} ({one['reason']})" for one in left_out["images"][:SHOWN])
        more = f"; and {left_out['count'] - SHOWN} more (--out lists all)" if left_out["count"] > SHOWN else ""
        out.line(f"left out: {left_out['count']} ({reasons}): {shown}{more}")


def _across(across: dict[str, Any], name: str, k: str) -> dict[str, Any]:
    """Return the cells of the strict question across sets; none where it was not asked."""
    if not across.get("images"):
        return {}
    return {"other sets": across[name][k], "other sets, 95 %": _interval(across["intervals"][name][k])}


def _names(unknown: list[dict[str, Any]]) -> str:
    from retr.retrieval.evaluation.protocols.names import in_words

    return in_words(unknown)


def _cell(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return "" if value["value"] is None else f"{value['value']:.3f} [{_interval(value)}]"


def _interval(estimate: dict[str, Any]) -> str:
    if estimate["low"] is None:
        return ""
    return f"{estimate['low']:.3f} to {estimate['high']:.3f}"
