// Runs jobs with the AI SDK (`ai` and `@ai-sdk/openai-compatible`) the way Dyad uses it: one JSON
// object per line on stdin, one answer per line on stdout. Jobs give OpenAI's request bodies; they
// are turned into the SDK's own prompt here, so that what goes over the wire is the SDK's work.
// The shapes of jobs and answers are documented in README.md beside this file.
import { createInterface } from "node:readline";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, jsonSchema, streamText, tool } from "ai";

globalThis.AI_SDK_LOG_WARNINGS = false; // stdout carries answers only

const mapObject = (entries, f) => Object.fromEntries(entries.map(f));

/** A part of a user message: OpenAI's shape to the SDK's. */
function partOf(part) {
  switch (part.type) {
    case "image_url":
      return { type: "image", image: part.image_url.url };
    case "file":
      return {
        type: "file",
        mediaType: "application/pdf",
        filename: part.file.filename,
        data: part.file.file_data.split(",")[1],
      };
    default:
      return { type: "text", text: part.text };
  }
}

/** A message: OpenAI's shape to the SDK's. */
function messageOf(message, names) {
  const { role, content } = message;
  if (role === "tool") {
    const output = { type: "text", value: content };
    const toolName = names.get(message.tool_call_id) ?? "unknown";
    return { role, content: [{ type: "tool-result", toolCallId: message.tool_call_id, toolName, output }] };
  }
  if (role === "assistant") {
    const parts = [];
    if (message.reasoning_content) parts.push({ type: "reasoning", text: message.reasoning_content });
    if (content) parts.push({ type: "text", text: content });
    for (const call of message.tool_calls ?? []) {
      names.set(call.id, call.function.name);
      const input = JSON.parse(call.function.arguments);
      parts.push({ type: "tool-call", toolCallId: call.id, toolName: call.function.name, input });
    }
    return { role, content: parts };
  }
  return { role, content: typeof content === "string" ? content : content.map(partOf) };
}

/** The SDK's call settings for an OpenAI request body. What the SDK has no word for is sent as it is. */
function callOf(provider, params) {
  const { model, messages, tools, tool_choice, max_tokens, reasoning_effort, stream: _, ...rest } = params;
  const names = new Map();
  const system = messages.filter((message) => message.role === "system").map((message) => message.content);
  const call = {
    model: provider.chatModel(model),
    messages: messages.filter((message) => message.role !== "system").map((message) => messageOf(message, names)),
    maxRetries: 0,
    providerOptions: { dyad: { ...rest, ...(reasoning_effort && { reasoningEffort: reasoning_effort }) } },
  };
  if (system.length) call.system = system.join("\n");
  if (max_tokens) call.maxOutputTokens = max_tokens;
  if (tools) {
    call.tools = mapObject(tools, ({ function: f }) => [
      f.name,
      tool({ description: f.description, inputSchema: jsonSchema(f.parameters) }),
    ]);
  }
  if (tool_choice) {
    call.toolChoice =
      typeof tool_choice === "string" ? tool_choice : { type: "tool", toolName: tool_choice.function.name };
  }
  return call;
}

const usageOf = (usage) =>
  usage?.inputTokens == null
    ? null
    : { prompt_tokens: usage.inputTokens, completion_tokens: usage.outputTokens, total_tokens: usage.totalTokens };

const toolCallOf = (call) => ({ id: call.toolCallId, name: call.toolName, arguments: JSON.stringify(call.input) });

// The SDK spells finish reasons with hyphens; answers use OpenAI's spelling.
const finishReasonOf = (reason) => reason?.replaceAll("-", "_") ?? null;

const operations = {
  async chat(provider, job, answer, abortSignal) {
    const result = await generateText({ ...callOf(provider, job.params), abortSignal, maxRetries: job.max_retries ?? 0 });
    answer.data = result.response.body ?? null;
    answer.text = result.text;
    answer.reasoning = result.reasoningText ?? "";
    answer.tool_calls = result.toolCalls.map(toolCallOf);
    answer.finish_reason = finishReasonOf(result.finishReason);
    answer.usage = usageOf(result.usage);
  },

  async chat_stream(provider, job, answer, abortSignal, abort) {
    const started = performance.now();
    const result = streamText({
      ...callOf(provider, job.params),
      maxRetries: job.max_retries ?? 0,
      includeRawChunks: true,
      include: { rawChunks: true },
      abortSignal,
      onError: () => {}, // told by the stream's error part
    });
    for await (const part of result.fullStream) {
      switch (part.type) {
        case "raw":
          answer.first_chunk_ms ??= performance.now() - started;
          answer.chunks.push(part.rawValue);
          break;
        case "text-delta":
          answer.text += part.text;
          break;
        case "reasoning-delta":
          answer.reasoning += part.text;
          break;
        case "tool-call":
          answer.tool_calls.push(toolCallOf(part));
          break;
        case "finish":
          answer.finish_reason = finishReasonOf(part.finishReason);
          answer.usage = usageOf(part.totalUsage);
          break;
        case "error":
          throw part.error;
      }
      if (job.abort_after_chunks && answer.chunks.length >= job.abort_after_chunks) {
        answer.aborted = true;
        abort();
        return;
      }
    }
  },

  async embeddings(provider, job, answer, abortSignal) {
    const { model, input } = job.params;
    const values = Array.isArray(input) ? input : [input];
    const result = await embedMany({ model: provider.embeddingModel(model), values, maxRetries: 0, abortSignal });
    answer.data = result.embeddings;
    answer.usage = { prompt_tokens: result.usage.tokens, completion_tokens: null, total_tokens: result.usage.tokens };
  },
};

/** Errors before the stream are `APICallError`s; an error event is handed on as the value it carried. */
function errorOf(thrown) {
  const error = thrown?.lastError ?? thrown;
  let body = error?.data ?? null;
  try {
    body ??= error?.responseBody ? JSON.parse(error.responseBody) : null;
  } catch {
    // not JSON: the message is all there is
  }
  const detail = body?.error ?? (typeof error === "object" ? error : {});
  return {
    class: error?.name ?? error?.constructor?.name ?? typeof error,
    status: error?.statusCode ?? null,
    code: detail.code ?? null,
    type: detail.type ?? null,
    param: detail.param ?? null,
    message: typeof error === "string" ? error : error?.message,
    body,
  };
}

async function run(job) {
  const answer = { chunks: [], text: "", reasoning: "", tool_calls: [], finish_reason: null, usage: null };
  const started = performance.now();
  const aborter = new AbortController();
  const provider = createOpenAICompatible({
    name: "dyad",
    baseURL: job.base_url,
    apiKey: job.api_key,
    headers: job.headers ?? {},
    includeUsage: job.params.stream_options?.include_usage ?? false,
  });
  const abort = () => aborter.abort();
  const timer =
    job.abort_after_ms &&
    setTimeout(() => {
      answer.aborted = true;
      abort();
    }, job.abort_after_ms);
  try {
    await operations[job.op](provider, job, answer, aborter.signal, abort);
  } catch (error) {
    if (!answer.aborted) answer.error = errorOf(error);
  } finally {
    clearTimeout(timer);
  }
  answer.total_ms = performance.now() - started;
  return answer;
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await run(JSON.parse(line))));
}
