"""Hands on the keyboard only: Tab to things, see where one is, press keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOOK = """() => {
    const el = document.activeElement;
    if (!el || el === document.body) return null;
    const nodes = [el, el.nextElementSibling];
    for (let up = el.parentElement; up && nodes.length < 6; up = up.parentElement) nodes.push(up);
    const draw = () => nodes.filter(Boolean).map((node) => {
        const style = getComputedStyle(node);
        const seen = node.checkVisibility({opacityProperty: true, visibilityProperty: true}) && node.offsetWidth !== 0;
        return seen && [style.outlineStyle, style.outlineWidth, style.outlineColor, style.boxShadow, style.stroke,
            style.borderTopColor, style.backgroundColor, style.transform].join();
    }).join("|");
    const focused = draw();
    el.blur();
    const blurred = draw();
    el.focus({preventScroll: true, focusVisible: true});
    const label = el.ariaLabel || el.innerText || el.name || el.title || "";
    return {what: `${el.tagName.toLowerCase()} ${label.trim().slice(0, 40)}`, marked: focused !== blurred};
}"""
STILL = """() => {
    const still = new CSSStyleSheet();
    still.replaceSync("*, *::before, *::after { transition: none !important; animation: none !important }");
    document.adoptedStyleSheets = [still];
}"""
MOST = 200  # presses of Tab that no page should need


class Keyboard:
    """Drives `page` without the mouse. Nothing may move while its looks are compared, so transitions are off."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def tab_to(self, target: Any) -> None:
        """Press Tab until `target` has the focus; it must show that it has."""
        for _ in range(MOST):
            self.page.keyboard.press("Tab")
            if target.evaluate("(el) => el === document.activeElement"):
                assert self.look()["marked"], f"the focus on {target} cannot be seen"
                return
        raise AssertionError(f"Tab does not reach {target}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    def choose(self, target: Any, key: str = "Enter") -> None:
        self.tab_to(target)
        self.press(key)

    def look(self) -> dict[str, Any]:
        self.page.evaluate(STILL)
        return self.page.evaluate(LOOK)

    def walk(self) -> list[dict[str, Any]]:
        """Everything Tab passes from the top of the page until it leaves it at the bottom."""
        self.page.wait_for_load_state("networkidle")
        self.page.evaluate("document.activeElement.blur()")
        passed: list[dict[str, Any]] = []
        self.page.evaluate(STILL)
        with self.staying_here(passed):
            for _ in range(MOST):
                self.page.keyboard.press("Tab")
                place = self.page.evaluate(LOOK)
                if place is None:
                    return passed
                passed.append(place)
        raise AssertionError(f"Tab is caught: {[place['what'] for place in passed[-6:]]}")

    @contextmanager
    def staying_here(self, passed: list[dict[str, Any]]) -> Iterator[None]:
        """Going from place to place must not leave the page; where it does, say after what, and where to."""
        began, went = self.page.url, []

        def asked(request: Any) -> None:
            if request.is_navigation_request() and request.frame == self.page.main_frame:
                went.append(f"{request.method} {request.url} was asked for after {len(passed)} places")

        def arrived(frame: Any) -> None:
            if frame == self.page.main_frame:
                went.append(f"{frame.url} was there after {len(passed)} places")

        self.page.on("request", asked)
        self.page.on("framenavigated", arrived)
        try:
            yield
        except Exception as error:
            raise AssertionError(f"{began} broke off at {passed[-1:]}; it went: {went}") from error
        finally:
            self.page.remove_listener("request", asked)
            self.page.remove_listener("framenavigated", arrived)
        assert not went, f"{began} was left at {passed[-1:]}: {went}"
