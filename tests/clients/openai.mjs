// Runs jobs with openai-node: one JSON object per line on stdin, one answer per line on stdout.
// The shapes of both are documented in README.md beside this file.
import { createInterface } from "node:readline";
import OpenAI from "openai";

const usageOf = (usage) =>
  usage && {
    prompt_tokens: usage.prompt_tokens,
    completion_tokens: usage.completion_tokens ?? null,
    total_tokens: usage.total_tokens,
  };

const operations = {
  async chat(client, job, answer, signal) {
    const completion = await client.chat.completions.create(job.params, { signal });
    const { message, finish_reason } = completion.choices[0];
    answer.data = completion;
    answer.text = message.content ?? "";
    answer.reasoning = message.reasoning_content ?? "";
    answer.tool_calls = (message.tool_calls ?? []).map((call) => ({ id: call.id, ...call.function }));
    answer.finish_reason = finish_reason;
    answer.usage = usageOf(completion.usage);
  },

  async chat_stream(client, job, answer, signal) {
    const started = performance.now();
    const calls = [];
    const stream = await client.chat.completions.create({ ...job.params, stream: true }, { signal });
    try {
      for await (const chunk of stream) {
        answer.first_chunk_ms ??= performance.now() - started;
        answer.chunks.push(chunk);
        answer.usage = usageOf(chunk.usage) ?? answer.usage;
        const choice = chunk.choices[0];
        if (choice) {
          answer.text += choice.delta.content ?? "";
          answer.reasoning += choice.delta.reasoning_content ?? "";
          for (const part of choice.delta.tool_calls ?? []) {
            const call = (calls[part.index] ??= { id: null, name: "", arguments: "" });
            call.id = part.id ?? call.id;
            call.name += part.function?.name ?? "";
            call.arguments += part.function?.arguments ?? "";
          }
          answer.finish_reason = choice.finish_reason ?? answer.finish_reason;
        }
        if (answer.chunks.length === job.abort_after_chunks) {
          answer.aborted = true;
          return;
        }
      }
    } finally {
      answer.tool_calls = calls;
    }
  },

  async models(client, _job, answer) {
    answer.data = (await client.models.list()).data;
  },

  async model(client, job, answer) {
    answer.data = await client.models.retrieve(job.params.model);
  },

  async embeddings(client, job, answer, signal) {
    const result = await client.embeddings.create(job.params, { signal });
    answer.data = result.data.map((item) => item.embedding);
    answer.usage = usageOf(result.usage);
  },
};

const errorOf = (error) => ({
  class: error.constructor.name,
  status: error.status ?? null,
  code: error.code ?? null,
  type: error.type ?? null,
  param: error.param ?? null,
  message: error.message,
  body: error.error ?? null,
});

async function run(job) {
  const answer = { chunks: [], text: "", reasoning: "", tool_calls: [], finish_reason: null, usage: null };
  const started = performance.now();
  const aborter = new AbortController();
  const client = new OpenAI({
    baseURL: job.base_url,
    apiKey: job.api_key,
    maxRetries: job.max_retries ?? 0,
    timeout: (job.timeout_s ?? 30) * 1000,
    defaultHeaders: job.headers ?? {},
  });
  const timer =
    job.abort_after_ms &&
    setTimeout(() => {
      answer.aborted = true;
      aborter.abort();
    }, job.abort_after_ms);
  try {
    await operations[job.op](client, job, answer, aborter.signal);
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
