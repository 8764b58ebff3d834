"""Runs jobs with openai-python: one JSON object per line on stdin, one answer per line on stdout.

The shapes of both are documented in README.md beside this file.
"""

import asyncio
import json
import sys
import time

import openai


def tool_call_of(calls, delta):
    """The tool call that a streamed delta belongs to, made on first sight."""
    call = calls.setdefault(delta.index, {"id": None, "name": "", "arguments": ""})
    if delta.id:
        call["id"] = delta.id
    if delta.function:
        call["name"] += delta.function.name or ""
        call["arguments"] += delta.function.arguments or ""


def usage_of(usage):
    return usage and {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": getattr(usage, "completion_tokens", None),
        "total_tokens": usage.total_tokens,
    }


async def chat(client, job, answer):
    completion = await client.chat.completions.create(**job["params"])
    answer["data"] = json.loads(completion.to_json())
    choice = completion.choices[0]
    answer["text"] = choice.message.content or ""
    answer["reasoning"] = getattr(choice.message, "reasoning_content", None) or ""
    answer["tool_calls"] = [
        {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
        for call in choice.message.tool_calls or []
    ]
    answer["finish_reason"] = choice.finish_reason
    answer["usage"] = usage_of(completion.usage)


async def chat_stream(client, job, answer):
    calls = {}
    started = time.monotonic()
    stream = await client.chat.completions.create(**{**job["params"], "stream": True})
    try:
        async for chunk in stream:
            answer.setdefault("first_chunk_ms", (time.monotonic() - started) * 1000)
            answer["chunks"].append(json.loads(chunk.to_json()))
            answer["usage"] = usage_of(chunk.usage) or answer["usage"]
            for choice in chunk.choices[:1]:
                delta = choice.delta
                answer["text"] += delta.content or ""
                answer["reasoning"] += getattr(delta, "reasoning_content", None) or ""
                for call in delta.tool_calls or []:
                    tool_call_of(calls, call)
                answer["finish_reason"] = choice.finish_reason or answer["finish_reason"]
            if len(answer["chunks"]) == job.get("abort_after_chunks"):
                answer["aborted"] = True
                return
    finally:
        answer["tool_calls"] = [calls[index] for index in sorted(calls)]
        await stream.close()


async def models(client, job, answer):
    page = await client.models.list()
    answer["data"] = [json.loads(model.to_json()) for model in page.data]


async def model(client, job, answer):
    found = await client.models.retrieve(job["params"]["model"])
    answer["data"] = json.loads(found.to_json())


async def embeddings(client, job, answer):
    result = await client.embeddings.create(**job["params"])
    answer["data"] = [item.embedding for item in result.data]
    answer["usage"] = usage_of(result.usage)


OPERATIONS = {f.__name__: f for f in (chat, chat_stream, models, model, embeddings)}


def error_of(error):
    return {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "type": getattr(error, "type", None),
        "param": getattr(error, "param", None),
        "message": getattr(error, "message", None) or str(error),
        "body": getattr(error, "body", None),
    }


async def run(job):
    answer = {"chunks": [], "text": "", "reasoning": "", "tool_calls": [], "finish_reason": None, "usage": None}
    started = time.monotonic()
    client = openai.AsyncOpenAI(
        base_url=job["base_url"],
        api_key=job["api_key"],
        max_retries=job.get("max_retries", 0),
        timeout=job.get("timeout_s", 30),
        default_headers=job.get("headers") or {},
    )
    abort_after_ms = job.get("abort_after_ms")
    try:
        work = OPERATIONS[job["op"]](client, job, answer)
        await asyncio.wait_for(work, abort_after_ms and abort_after_ms / 1000)
    except asyncio.TimeoutError:
        answer["aborted"] = True
    except Exception as error:  # whatever the library raised is what the test wants to see
        answer["error"] = error_of(error)
    finally:
        await client.close()
    answer["total_ms"] = (time.monotonic() - started) * 1000
    return answer


async def main():
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(await run(json.loads(line)), default=str), flush=True)


asyncio.run(main())
