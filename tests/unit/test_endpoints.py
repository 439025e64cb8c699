from __future__ import annotations

import json

import pytest

from airflow_provider_modelslab.endpoints import (
    FAMILIES,
    GENERATION_ENDPOINTS,
    FetchEndpoint,
    ForeignHostError,
    JobAddress,
    did_you_mean,
    endpoint_of_submission,
    fetch_request,
    parse_endpoint,
    parse_fetch_url,
    parse_job_id,
    parse_submission_path,
    submission_url,
)

ENTERPRISE_FAMILIES = (
    "face_gen flux flux_klein flux_kontext_dev z_image_turbo qwen nano_banana realtime image_editing super_resolution "
    "interior 3d faceswap deepfake voice text_to_speech speech_to_text image_to_video_ultra ultra_video flux_headshot video "
    "qwen_edit_2_1 krea_2_turbo"
)
STANDARD_FAMILIES = (
    "v6/images v6/realtime v6/video v6/voice v6/image_editing v6/3d v6/interior v6/faceswap v6/deepfake v6/whisper "
    "v7/images v7/video-fusion v7/voice v8/images v3 v3/dreambooth v4/dreambooth v1/enterprise"
)

# The five documentation pages: the request line of each, and where it puts the id.
SOURCE_PAGES = [
    ("v1/enterprise", "https://modelslab.com/api/v1/enterprise/fetch", {"key": "k", "request_id": "123"}),
    ("v1/enterprise/video", "https://modelslab.com/api/v1/enterprise/video/fetch/123", {"key": "k"}),
    ("v3", "https://stablediffusionapi.com/api/v3/fetch/123", {"key": "k"}),
    ("v4/dreambooth", "https://stablediffusionapi.com/api/v4/dreambooth/fetch", {"key": "k", "request_id": "123"}),
    (
        "v1/enterprise/flux_headshot",
        "https://modelslab.com/api/v1/enterprise/flux_headshot/fetch/123",
        {"key": "k"},
    ),
]


@pytest.mark.parametrize(("endpoint", "url", "body"), SOURCE_PAGES)
def test_requests_of_the_source_pages(endpoint, url, body):
    assert fetch_request(endpoint, "123", "k") == (url, body)


def test_every_known_family_is_a_member():
    known = {member.value for member in FetchEndpoint}
    assert known == {*STANDARD_FAMILIES.split(), *(f"v1/enterprise/{name}" for name in ENTERPRISE_FAMILIES.split())}


def test_a_family_of_tomorrow_has_its_id_in_the_path_on_modelslab():
    assert fetch_request("v9/holograms", "7", "k") == ("https://modelslab.com/api/v9/holograms/fetch/7", {"key": "k"})


def test_a_base_url_replaces_scheme_and_host_of_every_endpoint():
    for endpoint in FetchEndpoint:
        official, body = fetch_request(endpoint.value, "7", "k")
        url, own_body = fetch_request(endpoint.value, "7", "k", "http://127.0.0.1:8787")
        assert (url, own_body) == ("http://127.0.0.1:8787" + official[official.index("/api/") :], body)


def test_a_member_is_its_string_everywhere():
    member = FetchEndpoint("v6/video")
    assert member == "v6/video"
    assert f"{member}" == str(member) == "v6/video"
    assert json.dumps([member]) == '["v6/video"]'
    assert type(parse_endpoint(member)) is str


@pytest.mark.parametrize(
    "text",
    [
        "v6/video",
        " v6/video ",
        "/v6/video/",
        FetchEndpoint.V6_VIDEO,
        "v6/video/fetch",
        "https://modelslab.com/api/v6/video/fetch/147",
        "https://modelslab.com/api/v6/video/fetch/{id}?key=secret",
        "https://www.modelslab.com/api/v6/video/",
        "modelslab.com/api/v6/video/fetch/:request_id",
        "http://stablediffusionapi.com/api/v6/video",
        "WWW.ModelsLab.com/api/v6/video/fetch/147#top",
        "//modelslab.com/api/v6/video",
        "'https://modelslab.com/api/v6/video/fetch/147'",
        "v6/video?x",
    ],
)
def test_endpoint_spellings(text):
    assert parse_endpoint(text) == "v6/video"


@pytest.mark.parametrize(
    "text",
    [
        "v6/video/text2video",
        "/api/v6/video/text2video",
        "https://modelslab.com/api/v6/video/text2video",
        "modelslab.com/api/v6/video/text2video/",
        "Modelslab.com/api/v6/video/text2video",
        "POST https://www.modelslab.com/api/v6/video/text2video",
        '"https://modelslab.com/api/v6/video/text2video"',
        "<https://modelslab.com/api/v6/video/text2video>",
        "v6/video/text2video?key=secret",
    ],
)
def test_spellings_of_generation_endpoints(text):
    assert parse_submission_path(text) == "v6/video/text2video"


@pytest.mark.parametrize("parse", [parse_endpoint, parse_submission_path])
@pytest.mark.parametrize("text", ["https://evil.example/api/v6/video", "https://[/api/v6/video", "https:///api/v6"])
def test_a_url_of_another_host_is_no_endpoint(parse, text):
    with pytest.raises(ValueError, match="the connection's host says where requests go"):
        parse(text)


@pytest.mark.parametrize("parse", [parse_endpoint, parse_submission_path])
@pytest.mark.parametrize("text", ["https://evil.example/api/v6?key=secret", "https://user:secret@evil.example/api"])
def test_no_secret_of_a_copied_url_is_shown(parse, text):
    with pytest.raises(ValueError, match=r"evil\.example") as caught:
        parse(text)
    assert "secret" not in str(caught.value)


def test_no_secret_of_an_invalid_fetch_url_is_shown():
    with pytest.raises(ValueError, match="is not a valid URL") as caught:
        parse_fetch_url("https://user:secret@modelslab.com:port/api/v6/video/fetch/1?key=secret")
    assert "secret" not in str(caught.value)


def test_a_url_of_another_host_is_refused_by_the_name_of_the_argument():
    with pytest.raises(ValueError, match=r"^path must be the part after '/api/' of a URL of ModelsLab's API, not"):
        parse_submission_path("https://evil.example/api/v6/video", "path")


def test_a_fetch_url_where_a_generation_endpoint_is_meant_is_answered_with_one_of_its_family():
    with pytest.raises(ValueError, match=r"^endpoint '.*' is where jobs are fetched: .* such as 'v6/video/img2video'$"):
        parse_submission_path("https://modelslab.com/api/v6/video/fetch/147", "endpoint")


@pytest.mark.parametrize("host", ["www.modelslab.com", "WWW.modelslab.com", "modelslab.com"])
@pytest.mark.parametrize("scheme", ["https://", "http://", "//", ""])
def test_the_fetch_url_of_a_job_may_have_www_and_no_scheme(scheme, host):
    address = parse_fetch_url(f"{scheme}{host}/api/v6/video/fetch/147/?key=secret")
    assert (address.endpoint, address.job_id, address.host) == ("v6/video", "147", "modelslab.com")


def test_the_end_of_a_path_or_other_letter_case_is_a_near_miss_too():
    assert did_you_mean("text2img", GENERATION_ENDPOINTS) == " (did you mean 'v6/images/text2img'?)"
    assert did_you_mean("V6/Video/Text2Video", GENERATION_ENDPOINTS) == " (did you mean 'v6/video/text2video'?)"
    assert did_you_mean("", GENERATION_ENDPOINTS) == ""


def test_a_near_miss_is_answered_with_the_nearest_known_endpoint():
    assert did_you_mean("v6/vidoe", FAMILIES) == " (did you mean 'v6/video'?)"
    assert did_you_mean("v6/video/text2vidoe", GENERATION_ENDPOINTS) == " (did you mean 'v6/video/text2video'?)"
    with pytest.raises(ValueError, match=r"did you mean 'v6/video'\?"):
        parse_endpoint("v6 video")


def test_what_is_known_or_far_from_anything_has_no_hint():
    assert did_you_mean("v6/video", FAMILIES) == did_you_mean("v9/holograms", FAMILIES) == ""


@pytest.mark.parametrize(
    "text",
    [
        None,
        6,
        "",
        " ",
        "v6//video",
        "../wallet_balance",
        "v6/../x",
        "https://modelslab.com",
        "v6 video",
        b"v6",
    ],
)
def test_bad_endpoints_are_refused_by_name(text):
    with pytest.raises(ValueError, match="endpoint"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("value", "job_id"),
    [
        (12202888, "12202888"),
        (12202888.0, "12202888"),
        ("12202888.0", "12202888"),
        (" 12202888\n", "12202888"),
        ("6ef3f81f-14e1-4835-b07a-e00dbe80b6ff", "6ef3f81f-14e1-4835-b07a-e00dbe80b6ff"),
        (0, "0"),
        (10**30, "1" + "0" * 30),
    ],
)
def test_job_ids(value, job_id):
    assert parse_job_id(value) == job_id


@pytest.mark.parametrize(
    "value",
    [None, True, False, 1.5, float(2**53), float("nan"), float("inf"), -1, 10**200, "", " ", "..", ".", "../wallet_balance", "a/b", "a%2fb", "a?b", "a#b", "é", b"1", [1], {}],
)  # fmt: skip
def test_bad_job_ids_are_refused(value):
    with pytest.raises(ValueError, match="job id"):
        parse_job_id(value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://modelslab.com/api/v6/video/fetch/147", JobAddress("v6/video", "147", "modelslab.com", "path")),
        ("https://modelslab.com/api/v1/enterprise/fetch", JobAddress("v1/enterprise", None, "modelslab.com", "body")),
        ("https://modelslab.com/api/v1/enterprise/fetch/5", JobAddress("v1/enterprise", "5", "modelslab.com", "path")),
        (
            "https://stablediffusionapi.com/api/v3/dreambooth/fetch/9",
            JobAddress("v3/dreambooth", "9", "stablediffusionapi.com", "path"),
        ),
        ("http://modelslab.com:80/api/v6/images/fetch/9/", JobAddress("v6/images", "9", "modelslab.com", "path")),
        (
            "HTTPS://MODELSLAB.COM/api/v9/new-family/fetch/a-b",
            JobAddress("v9/new-family", "a-b", "modelslab.com", "path"),
        ),
        ("http://127.0.0.1:8787/api/v6/video/fetch/1", JobAddress("v6/video", "1", "", "path")),
    ],
)
def test_fetch_urls(url, address):
    assert parse_fetch_url(url, "http://127.0.0.1:8787") == address


def test_a_path_of_the_own_base_url_is_taken_off():
    assert parse_fetch_url("https://gw.example/lab/api/v6/video/fetch/1", "https://gw.example/lab") == JobAddress(
        "v6/video", "1", "", "path"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/api/v6/video/fetch/1",
        "https://modelslab.com.evil.example/api/v6/video/fetch/1",
        "https://evil-modelslab.com/api/v6/video/fetch/1",
        "https://modelslab.com:8443/api/v6/video/fetch/1",
        "http://modelslab.com:443/api/v6/video/fetch/1",
        "http://127.0.0.1:8788/api/v6/video/fetch/1",
        "https://127.0.0.1/api/v6/video/fetch/1",
    ],
)
def test_foreign_hosts_are_refused(url):
    with pytest.raises(ForeignHostError, match=r"fetch_result .*host"):
        parse_fetch_url(url, "http://127.0.0.1:8787")


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "v6/video/fetch/1",
        "ftp://modelslab.com/api/v6/video/fetch/1",
        "https://modelslab.com@evil.example/api/v6/video/fetch/1",
        "https://user:secret@modelslab.com/api/v6/video/fetch/1",
        "https://modelslab.com/api/v6/video/fetch/../../wallet_balance",
        "https://modelslab.com/api/v6/video/fetch/%2e%2e",
        "https://modelslab.com/api/wallet_balance",
        "https://modelslab.com/api/../fetch/1",
        "https://[::1/api/v6/video/fetch/1",
        "https://modelslab.com:99999/api/v6/video/fetch/1",
    ],
)
def test_what_is_no_fetch_url_is_refused(url):
    with pytest.raises(ValueError, match=r"fetch_result|job id") as caught:
        parse_fetch_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("v6/video/text2video", "v6/video"),
        ("v6/images/text2img", "v6/images"),
        ("v7/video-fusion/text-to-video", "v7/video-fusion"),
        ("v1/enterprise/text2img", "v1/enterprise"),
        ("v1/enterprise/flux_headshot/make_gen", "v1/enterprise/flux_headshot"),
        ("v4/dreambooth", "v4/dreambooth"),
        ("v4/dreambooth/img2img", "v3/dreambooth"),
        ("v1/enterprise/super_resolution", "v1/enterprise"),
        ("v5/controlnet", "v6/images"),
        ("v5/text2img", "v3"),
        ("v6/voice/speech_to_text", "v6/whisper"),
        ("v6/voice/text_to_speech", "v6/voice"),
        ("v3/text2img", "v3"),
        ("somewhere", "somewhere"),
    ],
)
def test_the_family_of_a_submission(path, endpoint):
    assert endpoint_of_submission(path) == endpoint


def test_a_request_goes_to_the_host_and_in_the_form_that_the_job_was_given():
    at_home = fetch_request("v4/dreambooth", "7", "k", host="modelslab.com", id_in="path")
    assert at_home == ("https://modelslab.com/api/v4/dreambooth/fetch/7", {"key": "k"})
    in_body = fetch_request("v6/video", "7", "k", id_in="body")
    assert in_body == ("https://modelslab.com/api/v6/video/fetch", {"key": "k", "request_id": "7"})
    own = fetch_request("v3", "7", "k", "http://127.0.0.1:1", host="modelslab.com")
    assert own == ("http://127.0.0.1:1/api/v3/fetch/7", {"key": "k"})


@pytest.mark.parametrize(
    "host", ["evil.example", "modelslab.com.evil.example", "modelslab.com:8080", "MODELSLAB.COM@x"]
)
def test_no_request_goes_to_a_host_that_a_record_made_up(host):
    assert fetch_request("v3", "7", "k", host=host) == fetch_request("v3", "7", "k")


def test_submissions_go_where_they_are_documented_today():
    assert submission_url("v3/text2img") == "https://modelslab.com/api/v3/text2img"
    assert submission_url("v6/video/text2video") == "https://modelslab.com/api/v6/video/text2video"
    assert submission_url("v3/text2img", "http://127.0.0.1:1") == "http://127.0.0.1:1/api/v3/text2img"


@pytest.mark.parametrize(
    "path", [None, 3, "", "../x", "v6/../../x", "https://modelslab.com/api/v6/video/fetch/1", "v6/video/fetch", "a b"]
)
def test_bad_submission_paths_are_refused_by_name(path):
    with pytest.raises(ValueError, match="path"):
        parse_submission_path(path)


@pytest.mark.parametrize("path", ["v6/video/text2video", "/v6/video/text2video/", "/api/v6/video/text2video"])
def test_submission_path_spellings(path):
    assert parse_submission_path(path) == "v6/video/text2video"
