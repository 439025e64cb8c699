"""Every reply that ModelsLab and what stands before it are known to give, and what each of them means."""

from __future__ import annotations

URL = "https://pub-3626123a.r2.dev/generations/a.gif"
QUEUED = {
    "status": "processing",
    "tip": "Your image is processing in background",
    "eta": 960,
    "message": "Try to fetch request after seconds estimated",
    "fetch_result": "https://modelslab.com/api/v6/video/fetch/147",
    "id": 147,
    "output": [],
    "meta": {"prompt": "a cat"},
    "future_links": ["https://cdn/a.gif"],
}
TRANSCRIPT = {"text": "Good night", "timestamps": [{"word": "Good", "start": 0.2, "end": 0.4}]}
TIP = "Get 20x faster image generation using the enterprise plan"

PAGE = b"<html>hi</html>"

QUOTED = (
    "rate limit",
    "try again later",
    "invalid api key",
    "insufficient credits",
    "monthly limit exceeded",
    "this feature requires a premium plan",
    "request not found",
    "invalid api request",
)
"""Words of prompts, which messages quote; at the beginning of a message they would decide."""

# status code, body, verdict, status of the job, outputs, message
REPLIES = {
    "success": (200, {"status": "success", "id": "", "output": [URL]}, "SUCCESS", "success", [URL], ""),
    "success of another job": (200, {"status": "success", "id": 2, "output": [URL]}, "TRANSIENT", "processing", [], "the reply is about another job, 2"),
    "failure of another job": (200, {"status": "failed", "id": "2", "message": "No GPU"}, "TRANSIENT", "processing", [], "the reply is about another job, 2"),
    "success in capitals": (200, {"status": "Success", "output": [URL]}, "SUCCESS", "success", [URL], ""),
    "success 201": (201, {"status": "success", "output": [URL]}, "SUCCESS", "success", [URL], ""),
    "output is a string": (200, {"status": "success", "output": URL}, "SUCCESS", "success", [URL], ""),
    "output is a dict": (200, {"status": "success", "output": {"a": URL, "b": [URL]}}, "SUCCESS", "success", [URL] * 2, ""),
    "output has gaps": (200, {"status": "success", "output": ["", None, " ", 7, URL]}, "SUCCESS", "success", [URL], ""),
    "output is base64": (200, {"status": "success", "output": ["data:image/png;base64,AAAA"]}, "SUCCESS", "success", ["data:image/png;base64,AAAA"], ""),
    "success with everything": (200, {"status": "success", "id": "", "output": [URL], "generationTime": 2.5, "proxy_links": [URL], "meta": {"seed": 1}, "tip": TIP, "nsfw_content_detected": [False], "webhook_status": "", "audio_time": 3, "links": [URL]}, "SUCCESS", "success", [URL], ""),
    "success of whisper, with an eta": (200, {"status": "success", "output": [URL], "eta": 4, "proxy_links": None}, "SUCCESS", "success", [URL], ""),
    "success with a file of base64": (200, {"status": "success", "output": [f"{URL}.base64"], "proxy_links": ""}, "SUCCESS", "success", [f"{URL}.base64"], ""),
    "success with []": (200, {"status": "success", "output": []}, "NO_OUTPUT", "processing", [], "the fields of the reply: output, status"),
    "success with empty text": (200, {"status": "success", "output": ""}, "NO_OUTPUT", "processing", [], "the fields of the reply: output, status"),
    "success with null": (200, {"status": "success", "output": None, "message": "Done"}, "NO_OUTPUT", "processing", [], "Done (the fields of the reply: message, output, status)"),
    "success with copies alone": (200, {"status": "success", "output": [], "proxy_links": [URL]}, "SUCCESS", "success", [URL], ""),
    "success with links": (200, {"status": "success", "links": [URL], "proxy_links": [f"{URL}?copy"]}, "SUCCESS", "success", [URL], ""),
    "success with output_url": (200, {"status": "success", "output_url": URL}, "SUCCESS", "success", [URL], ""),
    "success with a text": (200, {"status": "success", "output": "Good night."}, "SUCCESS", "success", ["Good night."], ""),
    "success with a transcript": (200, {"status": "success", "output": TRANSCRIPT}, "SUCCESS", "success", [TRANSCRIPT], ""),
    "success with a transcript in meta": (200, {"status": "success", "meta": {"transcription": TRANSCRIPT}}, "SUCCESS", "success", [TRANSCRIPT], ""),
    "success of a step of a workflow": (200, {"status": "success", "output": {"output": [URL], "status": "success"}}, "SUCCESS", "success", [URL], ""),
    "success with future links alone": (200, {"status": "success", "output": [], "future_links": [URL]}, "NO_OUTPUT", "processing", [], "the fields of the reply: future_links, output, status"),
    "sparse processing": (200, {"status": "processing", "message": "try again later.", "output": ""}, "PROCESSING", "processing", [], "try again later."),
    "sparse processing of v6/images": (200, {"status": "processing", "messege": "try again later.", "output": ""}, "PROCESSING", "processing", [], "try again later."),
    "full processing": (200, QUEUED, "PROCESSING", "processing", [], QUEUED["message"]),
    "mixed processing": (200, {"status": "processing", "message": "Wait", "output": "", "eta": "5", "id": 146, "fetch_result": QUEUED["fetch_result"]}, "PROCESSING", "processing", [], "Wait"),
    "processing with links": (200, {"status": "processing", "output": [URL], "proxy_links": [URL]}, "PROCESSING", "processing", [], ""),
    "queued": (200, {"status": "Queued"}, "PROCESSING", "processing", [], ""),
    "pending": (200, {"status": "pending"}, "PROCESSING", "processing", [], ""),
    "unknown status": (200, {"status": "warming up"}, "PROCESSING", "processing", [], ""),
    "no status": (200, {}, "PROCESSING", "processing", [], ""),
    "failed": (200, {"status": "failed", "id": "", "message": "Failed, Try Again", "output": ""}, "FAILED", "failed", [], "Failed, Try Again"),
    "failed without a word": (200, {"status": "failed", "message": ""}, "FAILED", "failed", [], "HTTP 200 without a reason"),
    "error": (200, {"status": "error", "message": "Model not found"}, "FAILED", "failed", [], "Model not found"),
    "error, 400": (400, {"status": "error", "messege": "Model not found"}, "REFUSED", "failed", [], "Model not found"),
    "error, 401": (401, {"status": "error", "message": "Model not found"}, "INVALID_KEY", "processing", [], "Model not found"),
    "error, 500": (500, {"status": "error", "messege": "Model not found"}, "TRANSIENT", "processing", [], "Model not found"),
    "error, 404": (404, {"status": "error", "message": "Model not found"}, "FAILED", "failed", [], "Model not found"),
    "error in messege": (200, {"status": "error", "messege": "No GPU"}, "FAILED", "failed", [], "No GPU"),
    "error in error": (200, {"status": "error", "error": {"reason": "No GPU"}}, "FAILED", "failed", [], "reason: No GPU"),
    "error in error_code": (200, {"status": "error", "error_code": 1015}, "FAILED", "failed", [], "1015"),
    "error in tip": (200, {"status": "error", "tip": "No GPU"}, "FAILED", "failed", [], "No GPU"),
    "error in tips": (200, {"status": "error", "tips": ["No", "GPU"]}, "FAILED", "failed", [], "No GPU"),
    "error in warning": (200, {"status": "error", "warning": "No GPU"}, "FAILED", "failed", [], "No GPU"),
    "error as a dict of lists": (200, {"status": "error", "message": {"prompt": ["The prompt field is required."]}}, "FAILED", "failed", [], "prompt: The prompt field is required."),
    "request not found": (200, {"status": "failed", "id": "", "message": "Request not found", "output": "", "tip": TIP}, "NOT_FOUND", "processing", [], "Request not found"),
    "request not found, failed, 404": (404, {"status": "failed", "id": "", "message": "Request not found", "output": "", "tip": TIP}, "NOT_FOUND", "processing", [], "Request not found"),
    "request not found, 404": (404, {"status": "error", "message": "Request not found"}, "NOT_FOUND", "processing", [], "Request not found"),
    "some other 404": (404, {"message": "The route could not be found."}, "NOT_FOUND", "processing", [], "The route could not be found."),
    "empty error": (200, {"status": "error", "message": ""}, "EMPTY_ERROR", "processing", [], ""),
    "empty error with a tip": (200, {"status": "error", "message": "", "tip": TIP}, "EMPTY_ERROR", "processing", [], TIP),
    "bare error": (200, {"status": "error"}, "EMPTY_ERROR", "processing", [], ""),
    "rate limit, older": (200, {"status": "error", "message": "Rate limit exceeded", "tips": "Please wait for 45 seconds"}, "RATE_LIMITED", "processing", [], "Rate limit exceeded"),
    "rate limit of a proxy": (429, {"message": "Too Many Attempts."}, "RATE_LIMITED", "processing", [], "Too Many Attempts."),
    "queue limit": (429, {"status": "error", "message": "Rate limit exceeded. Maximum 5 queued requests allowed.", "retry_after": 20}, "RATE_LIMITED", "processing", [], "Rate limit exceeded. Maximum 5 queued requests allowed."),
    "error: try again later": (200, {"status": "error", "message": "Busy. Try again later"}, "RATE_LIMITED", "processing", [], "Busy. Try again later"),
    "invalid key": (401, {"status": "error", "message": "Invalid API key"}, "INVALID_KEY", "processing", [], "Invalid API key"),
    "invalid key, older": (200, {"status": "error", "message": "Invalid Api Key"}, "INVALID_KEY", "processing", [], "Invalid Api Key"),
    "no key": (200, {"status": "error", "message": "API key required"}, "INVALID_KEY", "processing", [], "API key required"),
    "credits": (402, {"status": "error", "message": "Insufficient credits. Buy some"}, "NO_CREDITS", "processing", [], "Insufficient credits. Buy some"),
    "monthly quota": (200, {"status": "error", "message": "Your monthly limit exceeded, upgrade"}, "NO_CREDITS", "processing", [], "Your monthly limit exceeded, upgrade"),
    "plan": (403, {"status": "error", "message": "This feature requires a premium subscription"}, "NOT_IN_PLAN", "processing", [], "This feature requires a premium subscription"),
    "plan inside 200": (200, {"status": "error", "message": "This feature requires a premium subscription"}, "NOT_IN_PLAN", "processing", [], "This feature requires a premium subscription"),
    "malformed": (400, {"status": "error", "message": "Invalid API Request"}, "REFUSED", "failed", [], "Invalid API Request"),
    "malformed inside 200": (200, {"status": "error", "message": "Invalid API Request"}, "REFUSED", "failed", [], "Invalid API Request"),
    "validation, 400": (400, {"status": "error", "message": {"prompt": ["The prompt field is required."]}}, "REFUSED", "failed", [], "prompt: The prompt field is required."),
    "validation, 422": (422, {"message": {"prompt": ["missing"]}}, "REFUSED", "failed", [], "prompt: missing"),
    "method not allowed": (405, {"message": "Not allowed"}, "REFUSED", "failed", [], "Not allowed"),
    "server error": (500, {"status": "error", "message": "Internal server error. Sorry"}, "TRANSIENT", "processing", [], "Internal server error. Sorry"),
    "unavailable": (503, {"status": "error", "message": "Service temporarily unavailable."}, "TRANSIENT", "processing", [], "Service temporarily unavailable."),
    "request timeout": (408, {}, "TRANSIENT", "processing", [], ""),
    "too early": (425, {}, "TRANSIENT", "processing", [], ""),
    "gateway timeout": (504, {}, "TRANSIENT", "processing", [], ""),
    "a redirect": (307, {"status": "success", "output": [URL]}, "TRANSIENT", "processing", [], ""),
    **{
        f"html, {status}": (status, PAGE, "TRANSIENT", "processing", [], f"HTTP {status} with an HTML page")
        for status in (200, 201, 301, 302, 307, 308, 400, 401, 402, 403, 404, 408, 422, 425, 429, 500, 502, 503, 504, 520)
    },
    "text, 401": (401, b"Unauthorized", "INVALID_KEY", "processing", [], "HTTP 401 with something that is not JSON"),
    "nothing, 400": (400, b"", "REFUSED", "failed", [], "HTTP 400 with nothing"),
    "rate limit in tips": (200, {"status": "error", "tips": "Rate limit exceeded, wait for 30 seconds"}, "RATE_LIMITED", "processing", [], "Rate limit exceeded, wait for 30 seconds"),
    "not found in warning": (200, {"status": "error", "warning": "Request not found"}, "NOT_FOUND", "processing", [], "Request not found"),
    "not found in tip": (200, {"status": "failed", "message": "", "tip": "Request not found"}, "NOT_FOUND", "processing", [], "Request not found"),
    "rate limit in the second field": (200, {"status": "error", "message": "Error", "error": "Rate limit exceeded"}, "RATE_LIMITED", "processing", [], "Error"),
    "queue limit in words": (200, {"status": "error", "message": "Queue limit reached"}, "RATE_LIMITED", "processing", [], "Queue limit reached"),
    "key in tip": (200, {"status": "error", "tip": "Invalid API key"}, "INVALID_KEY", "processing", [], "Invalid API key"),
    "rate limit as text": (429, b"Too Many Attempts.", "RATE_LIMITED", "processing", [], "HTTP 429 with something that is not JSON"),
    "rate limit with a queue": (200, {"status": "error", "message": "Not now", "current_queue": 16}, "RATE_LIMITED", "processing", [], "Not now"),
    "rate limit for minutes": (200, {"status": "error", "message": "Try again in 30 minutes."}, "RATE_LIMITED", "processing", [], "Try again in 30 minutes."),
    "queue is full": (200, {"status": "error", "message": "Queue is full, please try later"}, "RATE_LIMITED", "processing", [], "Queue is full, please try later"),
    "server error inside 200": (200, {"status": "error", "message": "Internal server error. Please try again."}, "TRANSIENT", "processing", [], "Internal server error. Please try again."),
    "unavailable inside 200": (200, {"status": "error", "message": "Service is not available, try again"}, "TRANSIENT", "processing", [], "Service is not available, try again"),
    "an error that is none": (200, {"status": "error", "message": "Try to fetch request after seconds estimated"}, "PROCESSING", "processing", [], "Try to fetch request after seconds estimated"),
    "unauthenticated": (401, {"message": "Unauthenticated."}, "INVALID_KEY", "processing", [], "Unauthenticated."),
    **{
        f"no credits: {message}": (200, {"status": "error", "message": message}, "NO_CREDITS", "processing", [], message)
        for message in (
            "You are out of credits, please subscribe or fund your wallet",
            "Your credits are exhausted",
            "Not enough balance",
            "Wallet balance is insufficient",
            "Please fund your wallet",
        )
    },
    **{
        f"quoted in a failure: {words}": (200, {"status": "failed", "message": f"NSFW check failed for prompt: {words}"}, "FAILED", "failed", [], f"NSFW check failed for prompt: {words}")
        for words in QUOTED
    },
    **{
        f"quoted in an error: {words}": (200, {"status": "error", "message": f"The prompt {words!r} is not allowed"}, "FAILED", "failed", [], f"The prompt {words!r} is not allowed")
        for words in QUOTED
    },
    **{
        f"quoted at the beginning of an error: {words}": (200, {"status": "error", "message": f"{words!r} is not allowed in prompts"}, "FAILED", "failed", [], f"{words!r} is not allowed in prompts")
        for words in QUOTED
    },
    "failed at its beginning": (200, {"status": "failed", "message": "Rate limit exceeded"}, "FAILED", "failed", [], "Rate limit exceeded"),
    "nothing": (200, b"", "TRANSIENT", "processing", [], "HTTP 200 with nothing"),
    "cut": (200, b'{"status": "succ', "TRANSIENT", "processing", [], "HTTP 200 with something that is not JSON"),
    "a list": (200, b"[]", "TRANSIENT", "processing", [], "HTTP 200 with something that is not JSON"),
    "not utf-8": (200, b'{"status": "\xff"}', "TRANSIENT", "processing", [], "HTTP 200 with something that is not JSON"),
}  # fmt: skip
