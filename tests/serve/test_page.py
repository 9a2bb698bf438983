"""Every function of the page, driven in headless Chromium; `UNMASK_SCREENSHOTS=docs` writes the pictures of docs/."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

SHOTS = os.environ.get("UNMASK_SCREENSHOTS")


def open_tab(page: Any, model: str, tab: str, **values: str) -> None:
    page.select_option("#model", model)
    page.click(f"[data-tab={tab}]")
    for name, value in values.items():
        page.fill(f"[name={name}]", value)


def run(page: Any) -> None:
    page.click("#run")
    sync_api.expect(page.locator("#status")).to_have_text(re.compile("^Done in"), timeout=60_000)
    assert page.inner_text("#problem") == ""


def shoot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"page-{name}.png"), full_page=True)


def test_only_what_the_model_can_do_is_shown(page: Any, server: Any) -> None:
    tabs = {}
    for model in server.http.get("/v1/models").json()["data"]:
        page.select_option("#model", model["id"])
        tabs[model["id"]] = page.locator("[role=tab]").evaluate_all(
            "all => all.map((one) => one.dataset.tab)"
        )
    assert tabs["t5"] == ["write", "fill", "explain"]
    assert tabs["pair"] == ["fill", "detect", "rounds", "explain"]
    assert tabs["taste"] == ["task", "explain"]


def test_t5_writes_token_by_token(page: Any, server: Any, slowly: None) -> None:
    open_tab(page, "t5", "write", text="a meal", prefix="the ", tokens="64")
    page.evaluate(
        """() => {
            window.seen = [];
            const note = () => seen.push(document.getElementById("written")?.textContent);
            const result = document.getElementById("result");
            new MutationObserver(note).observe(result, { childList: true, subtree: true });
        }"""
    )
    run(page)
    wanted = server.http.post(
        "/v1/completions",
        json={"model": "t5", "prompt": "a meal", "max_tokens": 64, "decoder_prefix": "the "},
    ).json()["choices"][0]["text"]
    assert page.text_content("#written") == wanted and wanted.startswith("the ")
    assert len(set(page.evaluate("seen"))) > 2  # not in one piece
    shoot(page, "write")


def test_t5_fills_gaps(page: Any, server: Any) -> None:
    open_tab(page, "t5", "fill", text="a ___ ate the ___.")
    run(page)
    wanted = server.http.post("/v1/fill", json={"model": "t5", "input": "a ___ ate the ___."}).json()["data"][
        0
    ]
    assert page.text_content("#filled") == wanted["text"]
    assert page.locator("#filled mark").count() == 2


def test_electra_names_what_it_would_put_into_a_gap(page: Any) -> None:
    open_tab(page, "pair", "fill", text="the cook ___ a meal.")
    run(page)
    assert page.locator("#result tbody tr").count() == 8
    assert re.fullmatch(r"[\d.]+ %", page.locator("#result tbody td").nth(1).inner_text())


def test_suspicion_and_what_the_generator_would_write(page: Any, server: Any) -> None:
    open_tab(page, "pair", "detect", text="the cook ate a meal.")
    run(page)
    found = server.http.post("/v1/detect", json={"model": "pair", "input": "the cook ate a meal."}).json()[
        "data"
    ][0]
    labels = page.locator("#suspicion button").evaluate_all("all => all.map((one) => one.ariaLabel)")
    assert labels == [
        f"{token}: replaced with probability {100 * share:.1f} %"
        for token, share in zip(found["tokens"], found["suspicion"], strict=True)
    ]
    # By keyboard alone.
    page.locator("#suspicion button").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#alternatives table")
    assert "cook" in page.inner_text("#alternatives h2")
    assert page.locator("#suspicion [aria-pressed=true]").count() == 1
    shoot(page, "suspicion")


def test_electra_writes_round_by_round(page: Any, server: Any) -> None:
    open_tab(page, "pair", "rounds", text="the cook ate", tokens="6")
    run(page)
    asked = {"model": "pair", "input": "the cook ate", "max_tokens": 6}
    found = server.http.post("/v1/rounds", json=asked).json()
    assert page.locator("#rounds > li").count() == len(found["rounds"])
    assert page.text_content("#written") == found["text"] and found["text"].startswith("the cook ate")
    first, last = page.locator("#rounds > li").first, page.locator("#rounds > li").last
    assert first.locator(".open").count() == 6 and last.locator(".open").count() == 0
    # The two revisions send back the worst quarter of six.
    assert page.locator("#rounds > li", has_text="2 sent back").count() == 2
    shoot(page, "rounds")


def test_why_t5_writes(page: Any, server: Any) -> None:
    pytest.importorskip("captum", reason="needs the extra explain")
    open_tab(page, "t5", "explain", text="a meal")
    page.get_by_label("Text or label to explain").fill("the cook")
    run(page)
    asked = {"model": "t5", "input": "a meal", "target": "the cook"}
    found = server.http.post("/v1/explain", json=asked).json()
    assert page.locator("#target button").count() == len(found["target"])
    page.locator("#target button").nth(2).click()
    rows = page.locator("#evidence .tokens")
    labels = [
        rows.nth(n).locator(".token").evaluate_all("all => all.map((one) => one.ariaLabel)") for n in range(3)
    ]
    assert [len(one) for one in labels] == [len(found["source"]), 3, len(found["source"])]
    assert labels[0][0].endswith(f": {found['source_shares'][2][0]:.3f}")
    assert labels[1][1].endswith(f": {found['prefix_shares'][2][1]:.3f}")
    assert labels[2][0].endswith(f": {100 * found['cross_attention'][2][0]:.1f} %")
    shoot(page, "why")


def test_a_classification_with_its_evidence(page: Any) -> None:
    pytest.importorskip("captum", reason="needs the extra explain")
    open_tab(page, "taste", "task", text="a good meal.")
    run(page)
    assert page.inner_text("#answer") in ("good", "bad")
    assert page.locator("#evidence .token").count() == 6  # [CLS] and [SEP] too
    open_tab(page, "taste", "explain", text="a bad meal.")
    page.get_by_label("Text or label to explain").fill("bad")
    run(page)
    assert "bad" in page.inner_text("#result h2")
    shoot(page, "classification")


def test_a_classification_of_two_texts_with_its_evidence(open_page: Any, start: Any) -> None:
    pytest.importorskip("captum", reason="needs the extra explain")
    with start(("same",)) as server, open_page(server) as page:
        open_tab(page, "same", "task", first="the cook ate a meal.", second="a cook ate.")
        run(page)
        row = {"first": "the cook ate a meal.", "second": "a cook ate."}
        found = server.http.post("/v1/explain", json={"model": "same", "input": row}).json()
        assert page.inner_text("#answer") == found["label"]
        labels = page.locator("#evidence .token").evaluate_all("all => all.map((one) => one.ariaLabel)")
        assert labels == [
            f"{token}: {share:.3f}" for token, share in zip(found["tokens"], found["shares"], strict=True)
        ]
        assert [token for token in found["tokens"] if token == "[SEP]"] == ["[SEP]"] * 2
        open_tab(page, "same", "explain", first="the cook ate.", second="a meal.")
        page.get_by_label("Text or label to explain").fill("yes")
        run(page)
        assert "yes" in page.inner_text("#result h2")


def test_errors_are_said_and_a_run_can_be_stopped(page: Any, server: Any, slowly: None) -> None:
    open_tab(page, "t5", "fill", text="no gap")
    page.click("#run")
    sync_api.expect(page.locator("#problem[role=alert]")).to_contain_text("gap", timeout=60_000)
    open_tab(page, "t5", "write", text="<b>a meal</b>", tokens="256")
    page.click("#run")
    page.click("#stop")
    sync_api.expect(page.locator("#stop")).to_be_hidden(timeout=60_000)
    server.wait(lambda: server.metric("unmask_batch_rows") == 0)
    assert page.locator("#result b").count() == 0


def test_keyboard_languages_and_colours(page: Any) -> None:
    page.select_option("#model", "pair")
    page.focus("[role=tab][aria-selected=true]")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.tab") == "detect"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    # Every control has a name that a screen reader can say.
    named = "one.labels?.length ? one.labels[0].textContent : one.textContent"
    controls = page.locator("button:visible, input:visible, textarea:visible, select:visible")
    names = controls.evaluate_all(f"all => all.map((one) => {named})")
    assert len(names) > 6 and all(name.strip() for name in names)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.select_option("#theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.select_option("#language", "zh")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.inner_text("[data-tab=detect]") == "可疑度"
    page.click("[data-tab=detect]")
    shoot(page, "chinese-dark")
    page.reload()
    page.wait_for_selector("[role=tab]")
    assert page.inner_text("[data-tab=write]") == "写作"  # the choice is kept
    words = Path(__file__).parents[2] / "src/unmask/serve/page/page.js"
    english, chinese = (
        set(re.findall(r"(\w+): [\"(]", part))
        for part in re.findall(r"  (?:en|zh): \{\n(.*?)\n  \},", words.read_text("utf-8"), re.S)
    )
    assert english == chinese


def test_the_page_may_load_nothing_from_elsewhere(server: Any) -> None:
    found = server.http.get("/")
    assert "default-src 'self'" in found.headers["content-security-policy"]
    assert server.http.get("/page.js").headers["content-type"].startswith("text/javascript")
