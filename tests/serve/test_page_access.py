"""The page by keyboard alone and by what a screen reader is told: roles, names, focus, live regions, contrast."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
expect = sync_api.expect

#: Model → function → its controls: role and name.
CONTROLS = {
    "t5": {
        "Write": [
            ("textbox", "Text"),
            ("textbox", "The answer begins with"),
            ("spinbutton", "Tokens at most"),
        ],
        "Fill gaps": [("textbox", "Text")],
        "Why": [("textbox", "Text"), ("textbox", "Text or label to explain (empty: the model's own)")],
    },
    "pair": {
        "Fill gaps": [("textbox", "Text")],
        "Suspicion": [("textbox", "Text")],
        "Rounds": [("textbox", "Text"), ("spinbutton", "Tokens at most")],
        "Why": [("textbox", "Text")],
    },
    "taste": {
        "Task": [("textbox", "text")],
        "Why": [("textbox", "text"), ("textbox", "Text or label to explain (empty: the model's own)")],
    },
}
RUN = {
    "Write": "Write",
    "Fill gaps": "Fill",
    "Why": "Explain",
    "Suspicion": "Judge",
    "Rounds": "Write",
    "Task": "Ask",
}


def choose(page: Any, model: str, function: str) -> None:
    page.get_by_role("combobox", name="Model", exact=True).select_option(model)
    page.get_by_role("tab", name=function, exact=True).click()


def run(page: Any, function: str) -> None:
    page.get_by_role("button", name=RUN[function], exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Done in", timeout=60_000)


def test_every_control_has_its_role_and_name(page: Any) -> None:
    for name in ("Model", "Language", "Colours"):
        expect(page.get_by_role("combobox", name=name, exact=True)).to_be_visible()
    expect(page.get_by_role("tablist", name="What the model can do")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text("unmask")
    for model, functions in CONTROLS.items():
        page.get_by_role("combobox", name="Model", exact=True).select_option(model)
        expect(page.get_by_role("tab")).to_have_text(list(functions))
        for function, controls in functions.items():
            choose(page, model, function)
            expect(page.get_by_role("tab", name=function, selected=True)).to_have_count(1)
            panel = page.get_by_role("tabpanel", name=function, exact=True)
            for role, name in controls:
                expect(panel.get_by_role(role, name=name, exact=True)).to_be_visible()
            expect(panel.get_by_role("button", name=RUN[function], exact=True)).to_be_visible()
            # And there are no others, without a name.
            visible = panel.locator("input:visible, textarea:visible, select:visible, button:visible")
            expect(visible).to_have_count(len(controls) + 1)


def _focused(page: Any) -> str:
    told = "(one) => one.name || one.id || one.ariaLabel || one.textContent"
    return str(page.evaluate(f"({told})(document.activeElement)"))


def test_focus_goes_from_top_to_bottom(page: Any) -> None:
    choose(page, "pair", "Suspicion")
    page.get_by_role("textbox", name="Text").fill("the cook ate")
    run(page, "Suspicion")
    page.evaluate("document.body.tabIndex = -1; document.body.focus()")
    seen = []
    for _ in range(11):
        page.keyboard.press("Tab")
        seen.append(_focused(page))
    top = ["Skip to the content", "model", "language", "theme", "tab-detect", "panel", "text", "run"]
    assert seen[:8] == top and [one.split(":")[0] for one in seen[8:]] == ["the", "cook", "ate"]
    for _ in range(11):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert _focused(page) == "main"


def test_what_runs_is_stopped_by_keyboard_and_focus_stays(page: Any, slowly: None) -> None:
    choose(page, "t5", "Write")
    page.get_by_role("spinbutton", name="Tokens at most").fill("256")
    page.get_by_role("textbox", name="Text", exact=True).press("Control+Enter")
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.focus()
    page.keyboard.press("Enter")
    expect(stop).to_be_hidden()
    assert _focused(page) == "run"
    expect(page.get_by_role("status")).to_have_text("Stopped.")


def test_what_comes_is_announced(page: Any, slowly: None) -> None:
    expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")
    choose(page, "t5", "Write")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Working …")
    expect(page.locator("#result")).to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("log", name="Result")).to_have_attribute("aria-live", "polite")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#result")).not_to_have_attribute("aria-busy", "true")
    page.evaluate(
        """() => {
            window.said = [];
            const status = document.getElementById("status");
            new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
        }"""
    )
    choose(page, "pair", "Rounds")
    page.get_by_role("spinbutton", name="Tokens at most").fill("6")
    run(page, "Rounds")
    said = page.evaluate("said")
    assert "Round 1: 6 still open" in said and any(one.endswith("2 sent back") for one in said)
    assert page.get_by_role("img", name="open", exact=True).count() > 6
    page.get_by_role("textbox", name="Text", exact=True).fill("cook " * 40)
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("tokens")


#: Every text that is seen: what it says, and its contrast with what lies behind it (WCAG 2.2, 1.4.3); of every control
#: the contrast of its border (1.4.11).
CONTRAST = """() => {
    const parse = (text) => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+(?:e-\\d+)?/g).map(Number);
        return text.startsWith("color(srgb") ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
    };
    const over = ([r, g, b, a], under) => [r, g, b].map((one, at) => a * one + (1 - a) * under[at]);
    const ground = (one) => {
        const under = one.parentElement ? ground(one.parentElement) : [255, 255, 255];
        return over(parse(getComputedStyle(one).backgroundColor), under);
    };
    const light = (colour) => {
        const [r, g, b] = colour.map((one) => one / 255)
            .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (one, other) => {
        const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
        return (bright + 0.05) / (dark + 0.05);
    };
    const found = [];
    // As strong as a colour may be.
    document.querySelectorAll("[style*='--strength']").forEach((one) => one.style.setProperty("--strength", "65%"));
    document.querySelectorAll("body *").forEach((one) => {
        if (!one.checkVisibility() || one.closest(".skip")) return;
        const style = getComputedStyle(one), behind = ground(one);
        const own = [...one.childNodes].filter((part) => part.nodeType === 3).map((part) => part.data).join("");
        const text = one.matches("select, input, textarea") ? one.value : own;
        if (text.trim()) found.push([text.trim(), contrast(over(parse(style.color), behind), behind), 4.5]);
        if (one.matches("select, input, textarea, button:not(#run, [role=tab])")) {
            const outside = ground(one.parentElement);
            const line = over(parse(style.borderTopColor), outside);
            found.push([`border of ${one.id || one.name || text}`, contrast(line, outside), 3]);
        }
    });
    return found;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(page: Any, theme: str) -> None:
    page.get_by_role("combobox", name="Colours").select_option(theme)
    seen, kinds = [], set()
    for model, function in (
        ("pair", "Suspicion"),
        ("pair", "Rounds"),
        ("t5", "Fill gaps"),
        ("taste", "Task"),
    ):
        choose(page, model, function)
        if function == "Task":
            page.get_by_role("textbox", name="text").fill("the cook ate a good meal .")
        if function == "Suspicion":
            page.get_by_role("textbox", name="Text").fill("the cook ate")
        run(page, function)
        kinds |= {kind for kind in ("for", "against") if page.locator(f".token.{kind}").count()}
        seen += page.evaluate(CONTRAST)
    page.get_by_role("textbox", name="text").fill(" ")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).not_to_be_empty()
    seen += page.evaluate(CONTRAST)
    assert len(seen) > 100 and kinds == {"for", "against"}
    assert not [one for one in seen if one[1] < one[2]]
