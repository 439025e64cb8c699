"""The page "Outputs" in a real browser, on what real tasks have pushed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import XCom
from airflow_instance import PATIENCE
from playwright.sync_api import Locator, Page, expect

from airflow_provider_modelslab.sandbox import Sandbox, media
from tests.system.steps import wait_until_parked
from tests.ui.conftest import MILLISECONDS, page_url, wait_for
from tests.ui.records import failed, generated, job, waiting

SELECTS_OPERATORS = tuple(map(int, airflow_version.split(".")[:2])) >= (3, 4)
"""Whether this Airflow can show a tab on the tasks of some operators only."""

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def cards(page, *, status: str | None = None):
    return page.locator(".card:visible" if status is None else f".card[data-status={status}]:visible")


@pytest.fixture(scope="module")
def all_kinds(held) -> list[dict]:
    """One job of each kind."""
    return [
        generated(held, "image", "a lighthouse at dusk", nsfw_content_detected=[True]),
        generated(held, "video", "waves, slow motion"),
        generated(held, "audio", "the sea is calm tonight"),
        generated(held, "3d", "a gem, faceted"),
        job("text-1", endpoint="v7/llm", prompt="tell me a story", outputs=[f"Once upon a time … {HOSTILE}"]),
        failed("failed-1", "something forbidden", "Prompt violates the terms"),
        waiting("waiting-1", "a castle above the clouds", eta=600, since=10),
    ]


@pytest.fixture(scope="module")
def finished(tell, all_kinds) -> str:
    """A run whose only task has ended."""
    return tell(xcoms={"jobs": all_kinds})


# --- what it shows ----------------------------------------------------------------------------------------


def test_a_task_page_shows_what_came_out(open_page, site, finished):
    page = open_page(page_url(site, "told", finished, "tell"))
    expect(cards(page)).to_have_count(7)
    expect(page.locator("#summary")).to_have_text("5 of 7 jobs done · 1 failed · 1 unfinished")
    picture = cards(page).filter(has_text="a lighthouse at dusk")
    expect(picture).to_contain_text("done · 3.3 s · v6/images")
    expect(picture).to_contain_text("flagged as unsafe")
    expect(picture).to_contain_text("Not stored: the URL may expire (2 h old)")
    wait_for(page, "document.querySelector('.card img').naturalWidth > 0")
    expect(cards(page, status="failed")).to_contain_text("Prompt violates the terms")
    expect(cards(page, status="waiting")).to_contain_text("Not finished")
    expect(cards(page).filter(has_text="a gem")).to_contain_text(".glb")
    expect(page.get_by_role("link", name="All outputs of this run")).to_be_visible()


def test_texts_and_structured_results_are_shown_as_text(open_page, site, tell):
    outputs = ["A walk in the rain.", {"text": f"A walk {HOSTILE}", "words": [{"word": "A", "start": 0.1}]}]
    run = tell(xcoms={"jobs": [job("spoken-1", endpoint="v6/whisper", prompt="speech", outputs=outputs)]})
    page = open_page(page_url(site, "told", run, "tell"))
    expect(cards(page)).to_have_count(2)
    expect(cards(page).nth(0).locator("pre")).to_have_text("A walk in the rain.")
    expect(cards(page).nth(1).locator("pre")).to_contain_text('"start": 0.1')
    expect(cards(page).nth(1).locator("pre")).to_contain_text(HOSTILE.replace('"', '\\"'))


def test_a_run_page_shows_our_tasks(open_page, site, airflow, draws):
    page = open_page(page_url(site, "draws", draws))
    expect(page.locator("section h2")).to_have_count(3)
    expect(page.locator("section", has=page.get_by_text("draw success"))).to_contain_text("lighthouse")
    expect(cards(page)).to_have_count(4)


@pytest.fixture(scope="module")
def draws(airflow, media_root: Path) -> str:
    """A run whose tasks really generate, and store two pictures."""
    run_id = airflow.trigger("draws", {"folder": f"{media_root}/drawn"})
    assert airflow.wait_for_run("draws", run_id) == "success", airflow.failures("draws", run_id)
    return run_id


def test_a_batch_shows_names_and_stored_files(open_page, site, draws, media_root):
    page = open_page(page_url(site, "draws", draws, "draw"))
    harbour = cards(page).filter(has_text="a harbour in the morning fog")
    expect(harbour.locator("b")).to_have_text("harbour")
    expect(harbour.locator(".place")).to_contain_text(f"{media_root}/drawn/v6.images.")
    wait_for(page, "[...document.querySelectorAll('.card img')].every((image) => image.naturalWidth > 0)")
    assert "/modelslab/media?" in harbour.locator("img").get_attribute("src")


def test_a_stored_file_that_is_gone_gives_way_to_the_url(open_page, site, tell, held, media_root):
    record = generated(held, "image", "a fox")
    run_id = tell(xcoms={"jobs": [record], "files": [f"{media_root}/gone.png"]})
    page = open_page(page_url(site, "told", run_id, "tell"))
    wait_for(page, "document.querySelector('.card img')?.naturalWidth > 0")
    assert page.locator(".card img").get_attribute("src") == record["outputs"][0]


def test_an_output_that_is_gone_says_so(open_page, site, tell):
    run_id = tell(xcoms={"jobs": [job("1", outputs=["http://127.0.0.1:9/gone.png"])]})
    page = open_page(page_url(site, "told", run_id, "tell"))
    expect(cards(page)).to_contain_text("Cannot be shown: the URL may have expired")


def test_mapped_tasks_have_a_page_each_and_one_together(open_page, site, airflow, held):
    each = [{"jobs": [generated(held, "image", f"animal {number}")]} for number in range(3)]
    run_id = airflow.trigger("told_mapped", {"each": each})
    assert airflow.wait_for_run("told_mapped", run_id) == "success"
    page = open_page(page_url(site, "told_mapped", run_id, "tell", 1))
    expect(cards(page)).to_have_count(1)
    expect(cards(page)).to_contain_text("animal 1")
    for address in (page_url(site, "told_mapped", run_id), page_url(site, "told_mapped", run_id, "tell", -1)):
        page.goto(address)
        expect(cards(page)).to_have_count(3)
        expect(cards(page).nth(2)).to_contain_text("[2]")


def test_a_run_without_tasks_of_ours_says_so(open_page, site, tell):
    page = open_page(page_url(site, "told", tell(xcoms={"jobs": "not a list"})))
    expect(page.locator("#notice")).to_have_text("This run has no tasks of ModelsLab.")


@pytest.mark.parametrize(
    "xcoms",
    [
        {"jobs": [None, 1, "x", {}, {"endpoint": 5}, {"endpoint": "v6/images", "status": 7, "outputs": {"a": 1}}]},
        {"jobs": {"a": 1}, "manifest": [1], "files": "x"},
        {"manifest": {"items": [None, {"name": 5, "payload": [], "outputs": [None, 3], "files": {}, "status": []}]}},
        {"jobs": [job("1", outputs=[None, 5, "https://", "//x", "\x00"], submitted="now", eta="soon", message=[1])]},
    ],
)
def test_whatever_an_xcom_holds_the_page_stands(open_page, site, tell, xcoms):
    page = open_page(page_url(site, "told", tell(xcoms=xcoms), "tell"))
    expect(page.locator("section")).to_be_visible()
    expect(page.locator("#tasks")).to_have_attribute("aria-busy", "false")


# --- players ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_it_plays(open_page, site, finished, kind):
    page = open_page(page_url(site, "told", finished, "tell"))
    player = page.locator(f".card {kind}")
    player.scroll_into_view_if_needed()
    wait_for(page, f"document.querySelector('.card {kind}').src")
    player.evaluate("(player) => player.play()")
    wait_for(page, f"document.querySelector('.card {kind}').currentTime > 0.1")


def test_a_stored_video_plays_and_is_asked_for_in_parts(open_page, site, tell, held, media_root):
    record = generated(held, "video", "stored waves")
    (media_root / "waves.mp4").write_bytes(requests.get(record["outputs"][0], timeout=PATIENCE).content)
    run_id = tell(xcoms={"jobs": [record], "files": [f"{media_root}/waves.mp4"]})
    page = open_page(page_url(site, "told", run_id, "tell"))
    statuses = []
    page.on("response", lambda response: statuses.append(response.status) if "/media?" in response.url else None)
    wait_for(page, "document.querySelector('.card video')?.src.includes('/media?')")
    page.locator(".card video").evaluate("(player) => player.play()")
    wait_for(page, "document.querySelector('.card video').currentTime > 0.1")
    assert set(statuses) <= {206}


def test_a_stored_text_is_read(open_page, site, tell, media_root):
    (media_root / "story.txt").write_text(f"Once upon a time … {HOSTILE}")
    record = job("1", outputs=["https://example.com/story.txt"])
    run_id = tell(xcoms={"jobs": [record], "files": [f"{media_root}/story.txt"]})
    page = open_page(page_url(site, "told", run_id, "tell"))
    expect(page.locator(".card pre")).to_have_text(f"Once upon a time … {HOSTILE}")


# --- foreign text -----------------------------------------------------------------------------------------


def test_foreign_text_stays_text_and_foreign_urls_lead_into_the_web_only(open_page, site, tell):
    outputs = ["javascript:alert(3)", "data:text/html,<script>alert(4)</script>", "file:///etc/passwd", HOSTILE]
    jobs = [
        job("1", prompt=HOSTILE, outputs=outputs),
        failed(HOSTILE, "x", HOSTILE),
        job("3", prompt="y", endpoint=HOSTILE, outputs=["https://user@127.0.0.1:9/<script>alert(5)</script>.png"]),
    ]
    manifest = {"items": [{"name": HOSTILE, "job_id": "1", "payload": {"prompt": HOSTILE}}]}
    run_id = tell(xcoms={"jobs": jobs})
    named = tell(xcoms={"jobs": jobs[:1], "manifest": manifest})
    for run in (run_id, named):
        page = open_page(page_url(site, "told", run, "tell"))
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        expect(cards(page).first).to_contain_text(HOSTILE)
        for _ in range(cards(page).count()):
            if not page.locator("dialog[open]").count():
                page.locator(".open").first.click()
            hrefs = page.eval_on_selector_all("dialog a", "(links) => links.map((link) => link.protocol)")
            assert set(hrefs) <= {"http:", "https:"}
            page.keyboard.press("ArrowRight")
        sources = page.eval_on_selector_all("[src], [href]", "(nodes) => nodes.map((node) => node.src || node.href)")
        assert all(source.startswith("http") for source in sources)
        assert page.locator(".card script, dialog script").count() == 0


def test_nobody_is_told_where_a_visitor_comes_from(open_page, site, finished):
    page = open_page("about:blank")
    referrers = []
    page.on("request", lambda request: referrers.append(request.headers.get("referer")))
    page.goto(page_url(site, "told", finished, "tell"))
    wait_for(page, "document.querySelector('.card img')?.naturalWidth > 0")
    assert not any(referrers)


# --- while it runs ----------------------------------------------------------------------------------------


def test_a_deferred_task_counts_down_and_ends_without_flicker(open_page, site, airflow, held):
    ids = [held.submit("v6/video/text2video", {"prompt": f"film {number}"})["id"] for number in range(3)]
    records = [waiting(str(each), f"film {each}", eta=90, since=5) | {"endpoint": "v6/video"} for each in ids]
    run_id = airflow.trigger("waits", {"jobs": records})
    wait_until_parked(airflow, "waits", run_id, "wait")
    page = open_page(page_url(site, "waits", run_id, "wait"))
    expect(cards(page, status="waiting")).to_have_count(3)
    expect(page.locator("#summary")).to_have_text("0 of 3 jobs done · 3 unfinished")
    first = cards(page).first
    before = first.locator(".waiting span").inner_text()
    assert before.startswith("waited ")
    expect(first.locator(".waiting span")).not_to_have_text(before)
    page.evaluate("document.querySelector('.card').marked = true; document.querySelector('.open').focus()")
    held.finish(ids[1])
    if hasattr(XCom, "aset"):  # earlier triggers cannot write XComs
        expect(page.locator("#summary")).to_have_text("1 of 3 jobs done · 2 unfinished")
    assert airflow.task_instance("waits", run_id, "wait")["state"] == "deferred"
    for each in (ids[0], ids[2]):
        held.finish(each)
    expect(cards(page, status="done")).to_have_count(3)
    expect(page.locator("#summary")).to_have_text("3 of 3 jobs done")
    assert page.evaluate("document.querySelector('.card').marked && document.activeElement.className") == "open"


def test_a_running_task_shows_what_it_has_and_keeps_the_place(open_page, site, tell, tmp_path, held):
    until = tmp_path / "until"
    jobs = [waiting(str(number), f"picture {number}", eta=3000, since=30) for number in range(60)]
    run_id = tell(wait=False, xcoms={"jobs": jobs}, until=str(until))
    page = open_page(page_url(site, "told", run_id, "tell"))
    expect(cards(page)).to_have_count(60)
    expect(cards(page).first.locator(".waiting b")).to_have_text(re.compile(r"about \d+:\d\d min left"))
    page.evaluate("scrollTo(0, 900)")
    with page.expect_response(lambda response: "/taskInstances/tell" in response.url):
        pass
    assert page.evaluate("scrollY") == 900
    until.touch()
    expect(cards(page).first).to_contain_text("Not finished")


def test_it_stops_asking_when_all_has_ended(open_page, site, finished):
    page = open_page("about:blank")
    page.clock.install()
    page.goto(page_url(site, "told", finished, "tell"))
    expect(page.locator("#tasks")).to_have_attribute("aria-busy", "false")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/api/v2/" in request.url else None)
    page.clock.run_for(60_000)
    with page.expect_request("**/api/v2/version"):  # Whatever was asked before has been seen then.
        page.evaluate("fetch('../api/v2/version')")
    assert [url for url in asked if not url.endswith("/version")] == []


# --- finding one's way ------------------------------------------------------------------------------------


def test_filters_leave_what_was_asked_for(open_page, site, finished):
    page = open_page(page_url(site, "told", finished, "tell"))
    expect(cards(page)).to_have_count(7)
    page.get_by_role("button", name="Failed 1").click()
    expect(cards(page)).to_have_count(1)
    expect(cards(page)).to_contain_text("something forbidden")
    page.get_by_role("button", name="Unfinished 1").click()
    expect(cards(page)).to_contain_text("a castle above the clouds")
    page.get_by_role("button", name="All 7").click()
    expect(cards(page)).to_have_count(7)


def test_the_large_view_is_used_by_keyboard_alone(open_page, site, finished):
    page = open_page(page_url(site, "told", finished, "tell"))
    expect(cards(page)).to_have_count(7)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "open":
            break
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_have_accessible_name("a lighthouse at dusk")
    expect(dialog.locator("#large-position")).to_have_text("1 of 7")
    page.keyboard.press("ArrowRight")
    expect(dialog).to_have_accessible_name("waves, slow motion")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(dialog.locator("#large-position")).to_have_text("7 of 7")
    expect(dialog).to_contain_text("a castle above the clouds")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(".open:focus")).to_have_text("a castle above the clouds")


def test_copy_and_download(open_page, site, draws, media_root):
    page = open_page(page_url(site, "draws", draws, "draw"), permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Open harbour").click()
    page.get_by_role("button", name="Copy path").click()
    expect(page.locator(".copied")).to_have_text("Copied the path.")
    assert page.evaluate("navigator.clipboard.readText()").startswith(f"{media_root}/drawn/v6.images.")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.startswith("v6.images.")


def test_everything_has_a_name_for_a_screen_reader(open_page, site, finished):
    page = open_page(page_url(site, "told", finished, "tell"))
    expect(cards(page)).to_have_count(7)
    nameless = """(nodes) => nodes.filter((node) => !(node.getAttribute("aria-label") || node.alt || node.textContent.trim()))
        .map((node) => node.outerHTML)"""
    assert page.eval_on_selector_all("button, a, img, video, audio, pre", nameless) == []
    expect(page.get_by_role("list", name="Outputs of tell")).to_be_visible()
    page.get_by_role("button", name="Open a lighthouse at dusk").click()
    assert page.eval_on_selector_all("dialog button, dialog a, dialog img", nameless) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_light_or_dark_as_airflow_is(open_page, site, finished, theme):
    page = open_page(page_url(site, "told", finished, "tell"), color_scheme="dark" if theme == "light" else "light")
    page.evaluate(f"localStorage.setItem('theme', '{theme}')")
    page.reload()
    expect(cards(page)).to_have_count(7)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (theme == "dark")


@pytest.mark.parametrize("width", [400, 2000])
def test_it_fits(open_page, site, finished, width):
    page = open_page(page_url(site, "told", finished, "tell"), viewport={"width": width, "height": 800})
    expect(cards(page)).to_have_count(7)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".open").first.click()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= width


def test_many_outputs_ask_for_little_at_first(open_page, site, tell, held):
    (url,) = generated(held, "image", "one of many")["outputs"]
    run_id = tell(xcoms={"jobs": [job(str(n), outputs=[f"{url}?{n}"], prompt=f"picture {n}") for n in range(500)]})
    page = open_page("about:blank")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_url(site, "told", run_id, "tell"))
    wait_for(page, "document.querySelector('.card img')?.naturalWidth > 0")
    expect(cards(page)).to_have_count(500)
    assert len([each for each in asked if "/api/v2/" in each]) <= 5
    assert len([each for each in asked if each.startswith(url)]) < 100
    last = page.locator(".card").last
    last.scroll_into_view_if_needed()
    wait_for(page, "[...document.querySelectorAll('.card img')].at(-1).naturalWidth > 0")


# --- within Airflow ---------------------------------------------------------------------------------------


def follow(page, link):
    """Click a link, and return the page that it opens: Airflow 3.1 opens all in a tab of its own."""
    if link.get_attribute("target") != "_blank":
        link.click()
        return page
    with page.context.expect_page() as opened:
        link.click()
    return opened.value


def test_the_link_of_a_task_leads_to_its_page(open_page, site, draws):
    page = open_page(f"{site}/dags/draws/runs/{quote(draws)}/tasks/draw/details")
    page = follow(page, page.locator("a[href^='modelslab/outputs?']"))
    expect(cards(page)).to_have_count(2)
    assert page.url.startswith(f"{site}/modelslab/outputs?")


def test_a_task_without_jobs_links_quietly(open_page, site, airflow):
    run_id = airflow.trigger("refused")
    assert airflow.wait_for_run("refused", run_id) == "failed"
    log = airflow.task_log("refused", run_id, "wait")
    assert "ModelsLabArgumentError" in log
    assert "XCom not found" not in log
    page = open_page(f"{site}/dags/refused/runs/{quote(run_id)}/tasks/wait/details")
    page = follow(page, page.locator("a[href^='modelslab/outputs?']"))
    expect(page.locator(".hint")).to_have_text("No outputs: the task has ended without any job.")


def test_the_tab_shows_the_page_in_airflow(open_page, site, draws):
    page = open_page(f"{site}/dags/draws/runs/{quote(draws)}/tasks/draw")
    page.get_by_role("link", name="Outputs", exact=True).click()
    frame = page.frame_locator("iframe")
    expect(frame.locator(".card")).to_have_count(2)
    expect(frame.get_by_role("link", name="draws", exact=True)).to_be_hidden()
    frame.get_by_role("button", name="Open lighthouse").click()
    with page.context.expect_page() as opened:
        frame.get_by_role("link", name="Open URL").click()
    assert opened.value.evaluate("document.referrer") == ""
    with page.expect_download():
        frame.get_by_role("link", name="Download").click()


def test_tasks_of_others_have_no_tab_where_airflow_can_tell(open_page, site, finished):
    page = open_page(f"{site}/dags/told/runs/{quote(finished)}/tasks/tell")
    expect(page.get_by_role("link", name="Details")).to_be_visible()
    tabs = page.get_by_role("link", name="Outputs", exact=True)
    expect(tabs).to_have_count(0 if SELECTS_OPERATORS else 1)


def test_the_tab_of_a_run_shows_its_page(open_page, site, draws):
    page = open_page(f"{site}/dags/draws/runs/{quote(draws)}")
    page.get_by_role("link", name="Outputs", exact=True).first.click()
    expect(page.frame_locator("iframe").locator(".card")).to_have_count(4)


# --- pictures for the documentation -----------------------------------------------------------------------

AT_A_GLANCE = {"viewport": {"width": 1000, "height": 740}, "device_scale_factor": 1.5}
"""As wide as the pages of forges nearly are, so that the text is readable there, and sharp."""


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., None]:
    """Make a picture of a page, in the folder that ``make pictures`` names."""
    folder = Path(os.environ.get("PICTURES", tmp_path))

    def screenshot(page: Page, name: str, **options: Any) -> None:
        assert len(page.screenshot(path=folder / f"{name}.png", **options)) < 200_000

    return screenshot


def wait_until_still(part: Locator) -> None:
    """Wait until a part of a page looks the same for a second: nothing moves there."""
    looks = [part.screenshot()]
    while looks[-4:] != [looks[-1]] * 4:
        assert len(looks) < 1000, "it goes on moving"
        part.page.wait_for_timeout(300)
        looks.append(part.screenshot())


def drawn(sandbox: Sandbox, motif: str, prompt: str) -> dict:
    """Generate until a picture has the motif that the prompt names."""
    beginning = (Path(media.__file__).parent / f"{motif}.png").read_bytes()[:200]
    while True:
        record = generated(sandbox, "image", prompt)
        if requests.get(record["outputs"][0], timeout=PATIENCE).content.startswith(beginning):
            return record


def test_pictures_of_the_page(open_page, site, tell, tmp_path, held, take):
    jobs = [
        drawn(held, "lighthouse", "a lighthouse at dusk, flat colours"),
        drawn(held, "fox", "a fox in the snow"),
        generated(held, "video", "the same lighthouse, slow motion"),
        generated(held, "audio", "the sea is calm tonight"),
        generated(held, "3d", "a gem, faceted"),
        job(
            "30000871",
            endpoint="v7/llm",
            prompt="tell me a story",
            outputs=["Once upon a time there was a lighthouse keeper who collected storms."],
        ),
        failed("30000872", "something forbidden", "NSFW content detected: try another prompt"),
        waiting("30000873", "a castle above the clouds", eta=95, since=12),
    ]
    until = tmp_path / "until"
    address = page_url(site, "posters", tell("posters", wait=False, xcoms={"jobs": jobs}, until=str(until)), "generate")
    try:
        page = open_page(address, **AT_A_GLANCE)
        expect(cards(page)).to_have_count(8)
        wait_for(page, "[...document.querySelectorAll('.card img')].every((image) => image.naturalWidth > 0)")
        wait_for(page, "document.querySelector('.card video').readyState === 4")
        wait_until_still(page.locator(".card video"))  # The browser's sign that it loads has faded out.
        take(page, "outputs", full_page=True)
        page.get_by_role("button", name="Open a lighthouse at dusk, flat colours").click()
        wait_for(page, "document.querySelector('dialog img').naturalWidth > 0")
        take(page, "output-large")
    finally:
        until.touch()


@pytest.fixture
def three(held) -> list[dict]:
    """Pictures that show what their prompts say."""
    motifs = {"fox": "a fox in the snow", "harbour": "a harbour in the rain", "lighthouse": "a lighthouse at dusk"}
    return [drawn(held, *each) for each in motifs.items()]


def test_the_picture_of_the_tab(open_page, site, tell, three, take):
    address = f"{site}/dags/posters/runs/{quote(tell('posters', xcoms={'jobs': three}))}"
    page = open_page(address, viewport={"width": 1280, "height": 720}, device_scale_factor=1.25)
    page.get_by_role("link", name="Outputs", exact=True).click()
    frame = page.frame_locator("iframe")
    expect(frame.locator(".card")).to_have_count(3)
    frame.locator("img").evaluate_all("(images) => Promise.all(images.map((image) => image.decode()))")
    take(page, "outputs-tab")


def test_the_picture_of_a_choice(open_page, site, airflow, three, take):
    records = three[:2]
    files = [f"/stored/{record['id']}.png" for record in records]
    run_id = airflow.trigger("picks", {"xcoms": {"jobs": records, "files": files}})
    wait_until_parked(airflow, "picks", run_id, "pick")
    address = f"{site}/dags/picks/runs/{quote(run_id)}/tasks/pick/required_actions"
    page = open_page(address, user="admin", viewport={"width": 1280, "height": 1140}, device_scale_factor=1.25)
    wait_for(page, "[...document.querySelectorAll('img[src*=generations]')].filter((i) => i.naturalWidth).length === 2")
    take(page, "choice")
    airflow.answer("picks", run_id, "pick", "None of these")


def test_the_picture_of_the_sandbox(browser, take):
    page = browser.new_page(**{**AT_A_GLANCE, "device_scale_factor": 1.25})
    page.set_default_timeout(MILLISECONDS)
    with Sandbox(duration=float("inf")) as sandbox:
        for prompt in ("a lighthouse at dusk", "a harbour in the rain", "the same harbour, flat colours"):
            sandbox.finish(sandbox.submit("v6/images/text2img", {"prompt": prompt})["id"])
        sandbox.submit("v6/video/text2video", {"prompt": "waves, slow motion"})
        page.goto(sandbox.url)
        take(page, "sandbox", full_page=True)
    page.close()
