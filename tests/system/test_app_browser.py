"""Journeys through the dashboard in a real Chromium, against the program as a user starts it.

Throughout, nothing may be asked of another machine and nothing may be complained about in the console.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from app.browser import FLAGS
from tests.system.browsing import (
    HINTS,
    PATIENCE,
    ROOT,
    Watched,
    answered,
    file_name,
    open_page,
    open_tab,
    start,
    stop,
    wait_for_other,
)

pytestmark = pytest.mark.browser

PASTE = """async () => {
  const canvas = document.createElement('canvas');
  canvas.width = 32; canvas.height = 64;
  const blob = await new Promise(done => canvas.toBlob(done));
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File([blob], 'pasted.png', { type: 'image/png' }));
  document.dispatchEvent(new ClipboardEvent('paste', { clipboardData }));
}"""
"""A picture in the clipboard, pasted into the page."""


def test_from_the_first_page_to_a_link_that_opens_it_again(watched: Watched, address: str) -> None:
    """Overview → curve → query → ranking → attention pixel → part → brush → the same again by its link."""
    page = open_page(watched, address, "")
    page.wait_for_selector(".overview .chart")
    assert page.locator(".overview .heat button").count() == 6
    page.locator(".chart g[data-value='miss:1']").click()
    page.wait_for_selector(".overview .queries.wide button")
    behind = page.locator(".overview .queries.wide button").count()
    assert f"({behind})" in page.inner_text("header .subset")
    answered(page, page.locator(".overview .queries.wide button").nth(2).click)
    chosen = file_name(page)

    open_tab(page, "Rank", ".strip .card.right")
    assert page.locator(".strip .card.wrong").count() > 0
    assert page.locator(".strip .card.ignored .mark").first.inner_text() == "–"
    assert page.locator(".strip .card.right .mark").first.inner_text() == "✓"
    for image in page.locator(".strip img").all()[:5]:
        assert image.evaluate("image => image.decode().then(() => image.naturalHeight)") == 192
    page.locator(".strip button.card").nth(3).click()
    page.wait_for_selector(".strip li:nth-child(5) .card[aria-pressed=true]")

    open_tab(page, "Attention", ".canvas img")
    assert page.locator(".canvas").count() == 8
    note = page.inner_text(".attention > .note")
    page.locator(".canvas").nth(1).click(position={"x": 30, "y": 200})
    note = wait_for_other(page, ".attention > .note", note)
    assert "CC2 part 2" in note
    page.wait_for_function("() => location.search.includes('slot=CC2_2')")
    page.locator(".canvas").nth(1).focus()
    page.keyboard.press("ArrowRight")
    note = wait_for_other(page, ".attention > .note", note)
    page.get_by_role("button", name="Votes").click()
    page.wait_for_selector(".row.learned img")

    open_tab(page, "Parts", ".brush img")
    page.get_by_role("button", name="P2").first.click()
    page.wait_for_function("() => document.body.innerText.includes('P2 energy')")
    brush = page.locator(".brush")
    brush.scroll_into_view_if_needed()
    box = brush.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.6 * box["height"], steps=5)
    page.mouse.up()
    page.wait_for_selector(".painting .shortstrip")
    assert page.locator(".painting .shortstrip").count() == 2
    moved = page.inner_text(".painting .verdict")
    assert "The embedding moved by" in moved
    painted = page.locator(".brush .cells i").count()
    assert painted > 2
    link = page.url
    for part in ("query=query/", "match=bounding_box_test/", "cell=", "hidden=", "subset=miss:1"):
        assert part in link

    # In another tab: Gradio complains of its broken stream if one leaves a page at the wrong moment.
    other = page.context.new_page()
    other.goto(link)
    other.wait_for_selector(".painting .shortstrip")
    assert file_name(other) == chosen
    assert other.inner_text(".painting .verdict") == moved
    assert other.locator(".brush .cells i").count() == painted
    open_tab(other, "Attention", ".canvas img")
    assert other.inner_text(".attention > .note") == note


def test_choosing_filtering_and_walking(watched: Watched, address: str) -> None:
    page = open_page(watched, address)
    page.wait_for_selector(".strip .card")
    shown = page.locator(".strip button.card").count()
    page.locator(".control button", has_text="hidden").click()
    page.wait_for_function("() => !document.querySelector('.strip .card.ignored')")
    page.locator("[data-do=camera]", has_text="2").click()
    page.wait_for_function(
        "shown => document.querySelectorAll('.strip button.card').length < shown", arg=shown
    )
    assert all("· c2" in words for words in page.locator(".strip button .whose").all_inner_texts())
    page.locator("[data-do=shown]").evaluate(
        "slider => { slider.value = 5; slider.dispatchEvent(new Event('change', {bubbles: true})); }"
    )
    page.wait_for_function("() => document.querySelectorAll('.strip button.card').length === 5")
    seen = [file_name(page)]
    for name in ("Random", "Hardest", "›", "‹"):
        # By chance the random query is the hardest: only the answer is waited for.
        answered(page, page.locator("header.ccan nav button", has_text=name).click)
        seen.append(file_name(page))
    assert seen[0] != seen[1] and seen[4] == seen[2] != seen[3]
    assert page.locator("[data-do=order][aria-pressed=true]").inner_text() == "Hardest"
    assert "cameras=2" in page.url and "ignored=0" in page.url and "shown=5" in page.url


def test_sliders_and_switches_move_the_ranking(watched: Watched, address: str) -> None:
    page = open_page(watched, address)
    page.wait_for_selector(".strip .card")
    first = page.locator(".strip .distance").all_inner_texts()
    slider = page.locator("input[data-key=P1]")
    slider.focus()
    page.keyboard.press("Home")  # weight 0, by keyboard
    page.wait_for_function("() => location.search.includes('weights=1,0,')")
    page.wait_for_function(
        "() => document.querySelector('.rank .facts').innerText.includes('plain')"
    )
    assert page.locator(".strip .distance").all_inner_texts() != first
    assert page.evaluate("() => document.activeElement.dataset.key") == "P1", "the slider stayed"
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.search.includes('weights=1,0.6,')")
    page.get_by_role("button", name="all 1").click()
    page.wait_for_function("() => !location.search.includes('weights')")
    assert page.locator(".strip .distance").all_inner_texts() == first
    for name in ("flip", "rerank"):
        answered(page, page.locator(f"[data-do={name}][data-value='1']").click)
    page.wait_for_function("() => !document.querySelector('.rank .pending')")
    assert page.locator(".strip .distance").all_inner_texts() != first
    page.locator("[data-do=threshold][data-value=on]").click()
    page.wait_for_selector(".card .same")


def test_by_keyboard_alone(watched: Watched, address: str) -> None:
    page = open_page(watched, address, "")
    page.wait_for_selector(".overview .chart")
    seen = [file_name(page)]
    for key in ("n", "p", "h", "r"):
        answered(page, lambda key=key: page.keyboard.press(key))
        seen.append(file_name(page))
    assert seen[0] == seen[2] != seen[1] and seen[4] != seen[3]
    for key, ready in (
        ("2", ".strip .card"),
        ("3", ".canvas img"),
        ("4", ".brush img"),
        ("1", ".overview .chart"),
    ):
        page.keyboard.press(key)
        page.wait_for_selector(ready)
    page.keyboard.press("?")
    page.wait_for_selector(".overview .lesson", state="visible")
    page.locator(".chart g[data-value='miss:1']").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("header .subset")
    page.keyboard.press("2")
    page.wait_for_selector(".strip .card")
    before = page.inner_text("header .beside")
    answered(page, lambda: page.keyboard.press("]"))
    assert page.inner_text("header .beside") != before
    # Letters that are written into a field are no commands.
    name = file_name(page)
    page.locator("input[data-do=identity]").fill("nnn")
    assert file_name(page) == name
    page.keyboard.press("Enter")
    page.wait_for_selector(".notice")
    assert "there is no identity 'nnn'" in page.inner_text(".notice")

    page.keyboard.press("Escape")
    page.locator("header.ccan [role=tab]", has_text="Parts").click()
    page.wait_for_selector(".brush img")
    page.locator(".brush").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    page.wait_for_selector(".painting .shortstrip")
    assert page.locator(".brush .cells i").count() == 1
    assert page.evaluate("() => document.activeElement.className") == "brush"


def test_what_takes_long_comes_by_itself(watched: Watched, address: str) -> None:
    """Several looks give the same page until the work is done."""
    page = open_page(watched, address, "?tab=parts")
    page.wait_for_selector(".brush img")
    assert page.locator(".faith.none").count() == 12
    page.locator("[data-do=measure]").click()
    page.wait_for_selector(".parts .pending")
    page.wait_for_function(
        "() => document.querySelectorAll('.faith').length && !document.querySelector('.faith.none')"
    )
    assert page.locator(".parts .pending").count() == 0


def test_figures_are_saved_and_faces_blurred(watched: Watched, address: str) -> None:
    page = open_page(watched, address, "")
    page.wait_for_selector(".overview .chart")
    for kind, starts in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("csv", b"rank,")):
        menu = page.locator("section[aria-label=CMC] details.save")
        if menu.get_attribute("open") is None:
            menu.locator("summary").click()
        with page.expect_download() as waiting:
            page.locator(f"[data-do=save][data-value='cmc.{kind}']").click()
        assert waiting.value.suggested_filename == f"cmc.{kind}"
        assert Path(waiting.value.path()).read_bytes().startswith(starts)
    sharp = page.get_attribute(".querybar img", "src")
    answered(page, lambda: page.keyboard.press("b"))
    assert page.get_attribute(".querybar img", "src") != sharp and "blur=1" in page.url


def test_pictures_from_outside(
    watched: Watched, address: str, tmp_path: Path, arguments: list[str]
) -> None:
    page = open_page(watched, address)
    mine, other = "[data-upload=query] input", "[data-upload=match] input"
    page.wait_for_selector(mine, state="attached")
    broken = tmp_path / "<b>broken.jpg"
    broken.write_bytes(b"this is no picture")
    page.set_input_files(mine, broken)
    page.wait_for_selector(".notice")
    assert "<b>broken.jpg: expected a readable image" in page.inner_text(".notice")
    assert page.locator(".strip .card.right").count() > 0

    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(11 * 2**20))
    page.set_input_files(mine, large)
    page.wait_for_function("() => document.querySelector('.notice')?.innerText.includes('10 MB')")

    pictures = sorted((Path(arguments[-1]) / "query").glob("*.jpg"))
    page.set_input_files(mine, pictures[0])
    page.wait_for_selector(".strip .card.unknown")
    assert page.locator(".notice").count() == 0
    assert page.locator(".strip .card.right, .strip .card.wrong").count() == 0
    page.set_input_files(other, pictures[5])
    page.wait_for_selector(".pair img")
    assert page.locator(".pair img").count() == 2
    assert "upload" in page.inner_text("header .beside")
    before = file_name(page)
    page.evaluate(PASTE)
    assert wait_for_other(page, "header.ccan .file", before) == "pasted.png"
    assert "nothing can be right or wrong" in page.inner_text(".rank .summary .verdict")
    open_tab(page, "Attention", ".canvas img")
    open_tab(page, "Parts", ".brush img")
    assert "query=" not in page.url and "match=" not in page.url


def test_a_link_to_what_is_not_here_says_so(watched: Watched, address: str) -> None:
    page = open_page(watched, address, "?query=../../etc/passwd&slot=%3Cb%3E&__theme=dark")
    words = page.inner_text(".notice")
    assert "query=../../etc/passwd" in words and "slot=<b>" in words
    assert page.evaluate("() => document.body.classList.contains('dark')")
    page.locator("header [data-theme]").click()
    page.wait_for_function("() => !document.body.classList.contains('dark')")
    assert "__theme=light" in page.url


def test_without_webgl_and_on_a_tablet(
    chromium_path: str, address: str, environment: dict[str, str]
) -> None:
    """Nothing is drawn by WebGL, and nothing runs out of a narrow window.

    A browser of its own in a process of its own: Playwright's synchronous driver runs once a thread.
    """
    code = f"""
from playwright.sync_api import sync_playwright
with sync_playwright() as driver:
    browser = driver.chromium.launch(
        executable_path={chromium_path!r}, args={[*FLAGS, "--disable-webgl", "--disable-3d-apis"]!r}
    )
    page = browser.new_page(viewport={{"width": 820, "height": 1180}})
    page.set_default_timeout({PATIENCE})
    said = []
    page.on("console", lambda message: message.type in ("error", "warning") and said.append(message.text))
    assert page.evaluate("() => document.createElement('canvas').getContext('webgl')") is None
    for tab, ready in (("overview", ".chart"), ("rank", ".strip .card"), ("attention", ".canvas img"),
                       ("parts", ".brush img"), ("map", ".mapplot[data-drawn]"), ("errors", ".kinds"),
                       ("compare", ".panel"), ("learn", ".slices"), ("runs", ".panel")):
        page.goto({address!r} + "?tab=" + tab)
        page.wait_for_selector(ready)
        page.wait_for_timeout(300)
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= 820, (tab, wide)
        if tab == "map":
            assert "no WebGL" in page.inner_text(".mapplot + .notice")
            points = page.locator(".mapplot .scatterlayer .points path").count()
            assert points > 3 * 20, points
    said = [words for words in said if not any(hint in words for hint in {HINTS!r})]
    assert said == [], said
    browser.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_two_people_do_not_see_each_others_choice(
    watched: Watched, browser: Browser, address: str
) -> None:
    page = open_page(watched, address)
    first = file_name(page)
    with browser.new_context() as other:
        other.set_default_timeout(PATIENCE)
        theirs = other.new_page()
        theirs.goto(f"{address}?tab=rank")
        theirs.wait_for_selector("header.ccan .file")
        theirs.locator("header.ccan nav button", has_text="Hardest").click()
        hardest = wait_for_other(theirs, "header.ccan .file", first)
        page.locator("header.ccan nav button", has_text="›").click()
        assert wait_for_other(page, "header.ccan .file", first) != hardest
        assert file_name(theirs) == hardest


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_no_file_of_this_machine_can_be_read(
    address: str, arguments: list[str], environment: dict[str, str]
) -> None:
    index = next(Path(environment["CCAN_CACHE"]).glob("indices/*"))
    for path in (
        next((index / "thumbnails").iterdir()),
        index / "features.safetensors",
        arguments[1],
        next(Path(arguments[-1]).glob("query/*.jpg")),
        ROOT / "app" / "demo.py",
        "/etc/passwd",
        "../../../../../../etc/passwd",
    ):
        assert status(f"{address}gradio_api/file={urllib.parse.quote(str(path))}") in (403, 404), (
            path
        )
    assert status(f"{address}gradio_api/monitoring") in (403, 404)
    assert status(f"{address}monitoring") in (403, 404)


UP = "../" * 8 + "etc/passwd"
DISGUISES = [
    *("/etc/passwd", "//etc/passwd", "/./etc/./passwd", UP, "~/.ssh/id_rsa", "file:///etc/passwd"),
    *(UP.replace("/", "%2f"), UP.replace("../", "..%2f"), UP.replace("../", "%2e%2e/")),
    *(UP.replace("../", "%2e%2e%2f"), UP.replace("../", "..%252f"), UP.replace("../", "..%c0%af")),
    *(UP.replace("../", "....//"), UP.replace("../", "..%5c"), UP.replace("../", "..;/")),
    *("%2fetc%2fpasswd", "/etc/passwd%00.png", "/etc/passwd%00", "/proc/self/environ"),
    *("/proc/self/cwd/app/demo.py", "app/demo.py", "./app/demo.py", "C:/Windows/win.ini"),
    *("%5c%5chost%5cshare%5cx", "/dev/stdin", "/etc/shadow"),
]
ROADS = [
    "/gradio_api/file=",
    "/file=",
    "/gradio_api/file/",
    "/static/",
    "/assets/",
    "/theme/",
    "/custom_component/",
    "/",
]


def test_no_disguised_path_leads_to_a_file(address: str) -> None:
    """Raw requests, which no client has tidied up before."""
    server = urllib.parse.urlparse(address)
    tried = 0
    for road in ROADS:
        for disguise in DISGUISES:
            connection = http.client.HTTPConnection(str(server.hostname), server.port, timeout=60)
            connection.request("GET", road + disguise)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            assert answer.status in (403, 404), road + disguise
            assert b"root:" not in body and b"import" not in body, road + disguise
            tried += 1
    assert tried >= 200


def test_programs_get_the_same_by_typed_endpoints(address: str) -> None:
    """In a process of its own: the client leaves threads and sockets to the end of its process."""
    code = f"""
from gradio_client import Client
client = Client({address!r}, verbose=False, analytics_enabled=False)
view = client.predict("?tab=rank&shown=5", api_name="/view")
assert view["view"].count('data-do="match"') == 5 and "data-link" in view["header"], view["header"]
overview = client.predict("", api_name="/view")
query = overview["header"].split("?query=")[1].split('"')[0]
nearest = client.predict(query, 3, api_name="/rank")
assert [one["position"] for one in nearest if one["position"] > 0][0] == 1
terms = client.predict(query, nearest[0]["image"], api_name="/account")
assert abs(sum(terms.values()) - nearest[0]["distance"] ** 2) < 1e-3, terms
names = set(client.view_api(return_format="dict")["named_endpoints"])
assert names == {{"/rank", "/account", "/view"}}, names
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_a_login_guards_everything(
    arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    guarded = {**environment, "CCAN_AUTH": "anna:secret"}
    process, address = start(arguments, guarded, tmp_path / "log.txt")
    try:
        cache = Path(environment["CCAN_CACHE"])
        thumbnail = next(cache.glob("indices/*/thumbnails/*.jpg"))
        assert status(f"{address}gradio_api/file={thumbnail}") == 401
        assert status(f"{address}config") == 401
    finally:
        stop(process)


def test_check_builds_everything_and_ends(
    arguments: list[str], environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "app/demo.py", "--check", *arguments],
        cwd=ROOT,
        env={**environment, "CCAN_AUTH": "anna:secret"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "check passed" in done.stdout and "ranks query/0001_c1s1" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_errors_are_gone_through_by_key_and_a_kill_loses_nothing(
    arguments: list[str], environment: dict[str, str], watched: Watched, tmp_path: Path
) -> None:
    page, cases = watched.page, tmp_path / "cases.jsonl"
    process, found = start([*arguments, "--cases", str(cases)], environment, tmp_path / "log.txt")
    try:
        page.goto(f"{found}?tab=errors")
        page.wait_for_selector(".errors .kinds")
        page.keyboard.press("o")
        page.wait_for_selector("button[data-do=untag][data-value=occlusion][aria-pressed=true]")
        page.keyboard.press("t")
        page.keyboard.type("only the bag")
        page.keyboard.press("Enter")
        page.wait_for_selector(
            "button[data-do=untag][data-value='only the bag'][aria-pressed=true]"
        )
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("m")
        page.keyboard.type("seen by n and p")  # letters in a field are letters
        page.keyboard.press("Enter")
        page.wait_for_selector(".notes li")
        query = page.inner_text("header .file")
        page.goto("about:blank")
    finally:
        process.kill()
        process.wait()
    process, found = start([*arguments, "--cases", str(cases)], environment, tmp_path / "log.txt")
    try:
        page.goto(f"{found}?tab=errors&subset=tagged")
        page.wait_for_selector(".notes li")
        assert page.inner_text("header .file") == query
        assert "seen by n and p" in page.inner_text(".notes")
        assert page.locator(".tags button[data-do=untag][aria-pressed=true]").count() == 2
        page.goto("about:blank")
    finally:
        stop(process)
