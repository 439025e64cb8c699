"""
The fetch endpoints of ModelsLab as a table, and the way from a URL or a family to an entry of it.

Here lives all that is known about addresses: which family exists, on which host, and whether the job's id
travels in the path or in the body. Nothing here does I/O, imports Airflow or knows what a reply means.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Literal
from urllib.parse import SplitResult, quote, urlsplit

__all__ = ["FetchEndpoint"]

MODELSLAB = "modelslab.com"
STABLEDIFFUSIONAPI = "stablediffusionapi.com"

OFFICIAL_HOSTS = frozenset({MODELSLAB, STABLEDIFFUSIONAPI})
"""The only hosts, beside the connection's own, that the API key is ever sent to."""

_AROUND_COPIES = " \t\r\n'\"<>"
"""What surrounds an address in a page, a shell command or a mail."""

_DEFAULT_PORTS = {"http": 80, "https": 443}

_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_FAMILY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_NOTHING = re.compile(r"(?i)none|null|undefined|true|false|nan|inf(inity)?")
_NO_ID_NUMBER = re.compile(r"-\d+(\.\d+)?|\d+\.\d+")
_WHOLE_FLOAT = re.compile(r"^(\d+)\.0+$")
_JOB_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.~-]{0,127}")
_OFFICIAL_WITHOUT_SCHEME = re.compile(
    rf"(?i)(?://)?((?:www\.)?(?:{'|'.join(map(re.escape, sorted(OFFICIAL_HOSTS)))})(?:[:/?#].*)?)"
)
_END_OF_FETCH_PATH = re.compile(r"/fetch(/[^/]*)?$")
_FETCH_PATH = re.compile(rf"/api/(?P<family>{_SEGMENT}(?:/{_SEGMENT})*)/fetch(?:/(?P<id>[^/]+))?/?")


class FetchEndpoint(str, Enum):
    """
    The known fetch endpoints; the value is the family as it stands in the URL, between ``/api/`` and ``/fetch``.

    Wherever the provider takes an endpoint, it takes a member, its string, or the string of any other family.
    """

    # The endpoints of the five documentation pages that this provider started from.
    ENTERPRISE_IMAGES = "v1/enterprise"
    ENTERPRISE_VIDEO = "v1/enterprise/video"
    V3_IMAGES = "v3"
    V4_DREAMBOOTH = "v4/dreambooth"
    ENTERPRISE_FLUX_HEADSHOT = "v1/enterprise/flux_headshot"

    # The standard API.
    V3_DREAMBOOTH = "v3/dreambooth"
    V6_IMAGES = "v6/images"
    V6_REALTIME = "v6/realtime"
    V6_VIDEO = "v6/video"
    V6_VOICE = "v6/voice"
    V6_WHISPER = "v6/whisper"
    V6_IMAGE_EDITING = "v6/image_editing"
    V6_3D = "v6/3d"
    V6_INTERIOR = "v6/interior"
    V6_FACESWAP = "v6/faceswap"
    V6_DEEPFAKE = "v6/deepfake"
    V7_IMAGES = "v7/images"
    V7_VIDEO_FUSION = "v7/video-fusion"
    V7_VOICE = "v7/voice"
    V8_IMAGES = "v8/images"

    # Dedicated servers ("enterprise"), each with a key of its own.
    ENTERPRISE_FACE_GEN = "v1/enterprise/face_gen"
    ENTERPRISE_FLUX = "v1/enterprise/flux"
    ENTERPRISE_FLUX_KLEIN = "v1/enterprise/flux_klein"
    ENTERPRISE_FLUX_KONTEXT_DEV = "v1/enterprise/flux_kontext_dev"
    ENTERPRISE_Z_IMAGE_TURBO = "v1/enterprise/z_image_turbo"
    ENTERPRISE_QWEN = "v1/enterprise/qwen"
    ENTERPRISE_QWEN_EDIT_2_1 = "v1/enterprise/qwen_edit_2_1"
    ENTERPRISE_KREA_2_TURBO = "v1/enterprise/krea_2_turbo"
    ENTERPRISE_NANO_BANANA = "v1/enterprise/nano_banana"
    ENTERPRISE_REALTIME = "v1/enterprise/realtime"
    ENTERPRISE_IMAGE_EDITING = "v1/enterprise/image_editing"
    ENTERPRISE_SUPER_RESOLUTION = "v1/enterprise/super_resolution"
    ENTERPRISE_INTERIOR = "v1/enterprise/interior"
    ENTERPRISE_3D = "v1/enterprise/3d"
    ENTERPRISE_FACESWAP = "v1/enterprise/faceswap"
    ENTERPRISE_DEEPFAKE = "v1/enterprise/deepfake"
    ENTERPRISE_VOICE = "v1/enterprise/voice"
    ENTERPRISE_TEXT_TO_SPEECH = "v1/enterprise/text_to_speech"
    ENTERPRISE_SPEECH_TO_TEXT = "v1/enterprise/speech_to_text"
    ENTERPRISE_IMAGE_TO_VIDEO_ULTRA = "v1/enterprise/image_to_video_ultra"
    ENTERPRISE_ULTRA_VIDEO = "v1/enterprise/ultra_video"

    def __str__(self) -> str:
        return self.value


FAMILIES = frozenset(member.value for member in FetchEndpoint)
"""The known families."""

_GENERATIONS_BELOW = {
    "v1/enterprise": "text2img img2img inpaint controlnet",
    "v1/enterprise/flux_headshot": "make_gen",
    "v1/enterprise/image_to_video_ultra": "img2video",
    "v1/enterprise/qwen": "text2img",
    "v1/enterprise/ultra_video": "text2video",
    "v6/images": "text2img img2img inpaint controlnet",
    "v6/realtime": "text2img img2img inpaint",
    "v6/video": "text2video img2video text2video_ultra img2video_ultra watermark_remover",
    "v6/voice": "text_to_speech text_to_audio voice_to_voice voice_cover music_gen sfx song_generator speech_to_text "
    "lyrics_generator",
    "v6/image_editing": "removebg_mask super_resolution inpaint outpaint object_removal head_shot flux_headshot "
    "fashion caption qwen_edit",
    "v6/3d": "text_to_3d image_to_3d",
    "v6/interior": "make floor_planning room_decorator exterior_restorer scenario interior_mixer object_removal",
    "v6/faceswap": "single_face_swap multiple_face_swap single_video_swap specific_video_swap",
    "v7/images": "text-to-image image-to-image inpaint",
    "v7/video-fusion": "text-to-video image-to-video video-to-video lip-sync",
    "v7/voice": "text-to-speech speech-to-text speech-to-speech sound-generation music-gen song-extender song-inpaint",
}

_STANDARD = frozenset(f"{family}/{name}" for family, names in _GENERATIONS_BELOW.items() for name in names.split())

GENERATION_ENDPOINTS = frozenset(
    {"v4/dreambooth", *_STANDARD, *(path.replace("v6/", "v1/enterprise/") for path in _STANDARD)}
)
"""
Generation endpoints that are known, to find the one that a misspelt path means. There are others.

Dedicated servers have those of the standard API under their own prefix.
"""


IdPlace = Literal["path", "body"]
"""Where a fetch request carries the id: the URL ends ``/fetch/{id}``, or ``/fetch`` and the body has ``request_id``."""


class ForeignHostError(ValueError):
    """A ``fetch_result`` points to a host that the API key must not be sent to."""


@dataclass(frozen=True, slots=True)
class Route:
    """
    How the fetch requests of one family travel.

    :param family: the family as it stands in the URL, for example ``v6/video``.
    :param host: the official host that serves it.
    :param id_in: where the id stands.
    """

    family: str
    host: str = MODELSLAB
    id_in: IdPlace = "path"


# A family that is not listed here has the id in the path and is on modelslab.com: families appear every few
# months, and all of them so far had that shape. ``v6/images`` is documented in both forms; replies name the
# path in their ``fetch_result``, so the path it is.
_EXCEPTIONS = {
    route.family: route
    for route in (
        Route("v1/enterprise", id_in="body"),  # "Enterprise: Fetch Queue Image"
        Route("v3", host=STABLEDIFFUSIONAPI),  # "Fetch Queued Images Endpoint" of Stable Diffusion V3
        Route("v4/dreambooth", host=STABLEDIFFUSIONAPI, id_in="body"),  # "Dreambooth V4 Fetch Queued Images"
        Route("v3/dreambooth", host=STABLEDIFFUSIONAPI),  # where v4 jobs' fetch_result points
    )
}


# Where the jobs of a generation endpoint, or of all those below a path, are fetched when it is not the path above:
# read in the documentation, and in the ``fetch_result`` of replies.
_FETCHED_UNDER = {
    "v1/enterprise/super_resolution": "v1/enterprise",
    "v5/controlnet": "v6/images",
    "v6/voice/speech_to_text": "v6/whisper",
}
_FETCHED_UNDER_BELOW = {"v4/dreambooth": "v3/dreambooth", "v5": "v3", "v5/controlnet": "v6/images"}


@dataclass(frozen=True, slots=True)
class JobAddress:
    """
    Where a job is asked for: its family and its id there. An id means nothing outside its own family.

    :param endpoint: the family, for example ``v6/video``.
    :param job_id: the id, or ``None`` where the URL did not carry one (the id is then in the reply).
    :param host: the official host that the URL names; empty where it names the connection's own.
    :param id_in: where the URL has the id.
    """

    endpoint: str
    job_id: str | None
    host: str
    id_in: IdPlace


def parse_endpoint(value: object) -> str:
    """
    Return the family that ``endpoint`` names.

    :param value: a :class:`FetchEndpoint`, a string such as ``"v6/video"``, or the URL of a fetch endpoint as people
        copy it; slashes and spaces around it, and ``/fetch`` with or without an id, do not matter.
    :raises ValueError: it is no family: not a string, empty, or not made of plain path segments.
    """
    if not isinstance(value, str):
        raise ValueError(f"endpoint must be a string such as 'v6/video', not {type(value).__name__}")
    family = _END_OF_FETCH_PATH.sub("", _api_path(value, "endpoint"))
    if not _FAMILY.fullmatch(family) or _NOTHING.fullmatch(family):
        raise ValueError(
            f"endpoint {_without_secrets(value)!r:.200} is not a family of fetch endpoints: pass the part of the URL "
            f"between '/api/' and '/fetch', such as 'v6/video'{did_you_mean(family, FAMILIES)}"
        )
    return family


def parse_job_id(value: object) -> str:
    """
    Return a job id as a string: ``12202888``, ``12202888.0`` and ``" 12202888 "`` are all ``"12202888"``.

    :param value: an integer, a float without fraction (JSON and spreadsheets make these), or a string of
        letters, digits, ``-``, ``_``, ``.`` and ``~``.
    :raises ValueError: it is none of these. Nothing that passes can reach beyond its own segment of a URL.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"a job id must be a number or a string, not {type(value).__name__}")
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"job id {value!r} is not a whole number")
        if abs(value) >= 2**53:
            raise ValueError(f"job id {value!r} has lost digits as a floating-point number: pass it as a string")
        value = int(value)
    if isinstance(value, int):
        if not 0 <= value < 10**128:
            raise ValueError("a job id cannot be negative or longer than 128 digits")
        return str(value)
    job_id = _WHOLE_FLOAT.sub(r"\1", value.strip())
    if not _JOB_ID.fullmatch(job_id) or _NOTHING.fullmatch(job_id) or _NO_ID_NUMBER.fullmatch(job_id):
        raise ValueError(
            f"job id {value!r:.200} is not an id (pass several as a list): expected at most 128 letters, digits, '-', "
            "'_', '.' or '~', or the URL that a reply names as fetch_result"
        )
    return job_id


def parse_fetch_url(url: object, base_url: str | None = None) -> JobAddress:
    """
    Return the address that a ``fetch_result`` URL names.

    :param url: the URL, as a submission reply carries it.
    :param base_url: the connection's own base URL, where it has one: its host is then as good as the official ones.
    :raises ForeignHostError: it points to a host that the key must not be sent to.
    :raises ValueError: it is not a fetch URL.
    """
    if not isinstance(url, str):
        raise ValueError(f"fetch_result must be a URL, not {type(url).__name__}")
    own = urlsplit(base_url) if base_url else None
    try:
        parts = urlsplit(_with_scheme(url))
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        own_site = (own.hostname, own.port or _DEFAULT_PORTS.get(own.scheme)) if own else None
    except ValueError:
        raise ValueError(f"fetch_result {_without_secrets(url)!r:.200} is not a valid URL") from None
    if parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise ValueError(f"fetch_result {_without_secrets(url)!r:.200} is not a plain http(s) URL")
    if own is not None and (parts.hostname, port) == own_site:
        path, host = parts.path.removeprefix(own.path.rstrip("/")), ""
    elif (name := _bare_host(parts)) in OFFICIAL_HOSTS and port == _DEFAULT_PORTS[parts.scheme]:
        path, host = parts.path, name
    else:
        raise ForeignHostError(
            f"fetch_result points to the host {parts.netloc!r:.200}, which is neither ModelsLab's nor the "
            "connection's own: the API key is not sent there"
        )
    match = _FETCH_PATH.fullmatch(path)
    if not match:
        raise ValueError(f"fetch_result {_without_secrets(url)!r:.200} does not look like .../api/<family>/fetch/<id>")
    family, job_id = parse_endpoint(match["family"]), match["id"]
    if job_id is None:
        return JobAddress(family, None, host, "body")
    return JobAddress(family, parse_job_id(job_id), host, "path")


def endpoint_of_submission(path: str) -> str:
    """
    Return the family under which the jobs of a generation endpoint are fetched, where the reply does not say it.

    ``v6/video/text2video`` is fetched under ``v6/video``, ``v1/enterprise/text2img`` under ``v1/enterprise``;
    ``v4/dreambooth``, which is itself a generation endpoint, under its own name; a few under another family.

    :param path: the path of the generation endpoint, already parsed by :func:`parse_submission_path`.
    """
    if path in _FETCHED_UNDER:
        return _FETCHED_UNDER[path]
    if path in FAMILIES or path in _ASKED_FOR_BY_NAME or "/" not in path:
        return path
    above = path.rpartition("/")[0]
    return _FETCHED_UNDER_BELOW.get(above, above)


def parse_submission_path(value: object, argument: str = "path") -> str:
    """
    Return the path of a generation endpoint, for example ``v6/video/text2video``.

    :param value: the path, or the whole URL as people copy it.
    :param argument: what the user calls it, for the error.
    :raises ValueError: it is not made of plain path segments, or is that of a fetch endpoint.
    """
    if not isinstance(value, str):
        raise ValueError(f"{argument} must be a string such as 'v6/video/text2video', not {type(value).__name__}")
    path = _api_path(value, argument)
    if _END_OF_FETCH_PATH.search(path):
        raise ValueError(
            f"{argument} {_without_secrets(value)!r:.200} is where jobs are fetched: pass a generation endpoint such "
            f"as {example_below(_END_OF_FETCH_PATH.sub('', path))!r}"
        )
    if not _FAMILY.fullmatch(path) or _NOTHING.fullmatch(path):
        raise ValueError(
            f"{argument} {_without_secrets(value)!r:.200} is not a generation endpoint such as 'v6/video/text2video'"
            f"{did_you_mean(path, GENERATION_ENDPOINTS)}"
        )
    return path


def example_below(family: str) -> str:
    """Return a generation endpoint of a family, where one is known, else any."""
    return min((each for each in GENERATION_ENDPOINTS if each.startswith(f"{family}/")), default="v6/video/text2video")


def did_you_mean(name: str, known: Collection[str]) -> str:
    """
    Return ``" (did you mean 'v6/video'?)"`` where a name that is not known is close to one that is, else ``""``.

    Only for the texts of errors: new families appear every few months, and may be close to known ones.
    """
    if name in known:
        return ""
    name = name[:100].lower()
    ends = [each for each in known if name and each.endswith(f"/{name}")]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75) or sorted(ends, key=lambda each: (len(each), each))
    return "".join(f" (did you mean {each!r}?)" for each in near[:1])


@lru_cache(maxsize=256)
def route_of(endpoint: str) -> Route:
    """Return how the fetch requests of a family travel; any family has a route."""
    return _EXCEPTIONS.get(endpoint) or Route(endpoint)


def fetch_request(
    endpoint: str,
    job_id: str,
    key: str,
    base_url: str | None = None,
    *,
    host: str = "",
    id_in: IdPlace | Literal[""] = "",
) -> tuple[str, dict[str, str]]:
    """
    Return the URL and the JSON body of the ``POST`` that asks for one job.

    :param endpoint: a family, as :func:`parse_endpoint` returns it.
    :param job_id: an id, as :func:`parse_job_id` returns it.
    :param key: the API key; it travels in the body and nowhere else.
    :param base_url: replaces the scheme and the host of the official address.
    :param host: the official host that the job's own ``fetch_result`` names; empty, or any other, for the family's.
    :param id_in: where the job's own ``fetch_result`` has the id; empty for the family's own form.
    """
    route = route_of(endpoint)
    url = api_url(f"{route.family}/fetch", host if host in OFFICIAL_HOSTS else route.host, base_url)
    if (id_in or route.id_in) == "body":
        return url, {"key": key, "request_id": job_id}
    return f"{url}/{quote(job_id, safe='')}", {"key": key}


def submission_url(path: str, base_url: str | None = None) -> str:
    """Return the URL of a generation endpoint: those of ``v3`` and ``v4``, too, are documented on modelslab.com now."""
    return api_url(path, base_url=base_url)


def api_url(path: str, host: str = MODELSLAB, base_url: str | None = None) -> str:
    """Return the URL of any path of the API: ``https://<host>/api/<path>``, or the same under ``base_url``."""
    return f"{base_url or f'https://{host}'}/api/{path}"


def _api_path(text: str, argument: str) -> str:
    """
    Return the path below ``/api/`` that a path, or a URL of ModelsLab's, names as people copy it; not checked.

    :param argument: what the user calls it, for the error.
    :raises ValueError: the URL is that of another host.
    """
    text = _with_scheme(re.sub(r"^POST\s+", "", str(text).strip(_AROUND_COPIES)))
    if "://" in text:
        parts = _split(text)
        if parts is None or _bare_host(parts) not in OFFICIAL_HOSTS:
            raise ValueError(
                f"{argument} must be the part after '/api/' of a URL of ModelsLab's API, not "
                f"{_without_secrets(text)!r:.200}: the connection's host says where requests go"
            )
        text = parts.path
    return re.split("[?#]", text)[0].strip("/").removeprefix("api/")


def _with_scheme(url: str) -> str:
    """Return a URL of ModelsLab's with its scheme, which people leave out; any other text as it is."""
    match = _OFFICIAL_WITHOUT_SCHEME.fullmatch(url.strip())
    return f"https://{match[1]}" if match else url.strip()


def is_address(text: str) -> bool:
    """Whether a text is a URL, maybe one of ModelsLab's without its scheme."""
    return "://" in _with_scheme(text)


def _bare_host(parts: SplitResult) -> str:
    return (parts.hostname or "").removeprefix("www.")


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _without_secrets(url: str) -> str:
    """Return a URL that may be shown: without user-info and query, where keys have been seen."""
    return re.sub(r"//[^/]*@", "//…@", url.partition("?")[0])


_ASKED_FOR_BY_NAME = frozenset({"v3/lora_fine_tune"})
"""What starts a training that goes by the same name afterwards."""
