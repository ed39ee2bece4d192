// Tokens out of the events of /v1/completions, where `logprobs` name them by id (return_tokens_as_token_ids).
// A token is {id, logprob, top, numAsked, isPrompt, isDraft}: `logprob` is null where none is known; `top` is a
// list of {id, logprob}, the likeliest first: the `numAsked` likeliest, and behind them the token itself if it is
// none of these.

// The tokens of one event: what one step of the model brought. All but its first were drafts.
export function tokensOf(
  { logprobs, token_ids: generated = [], prompt_token_ids: prompt = [] },
  { hasPrompt, numAsked },
) {
  const listed = logprobs.tokens.map((name, at) =>
    tokenOf(name, logprobs.token_logprobs[at], logprobs.top_logprobs?.[at]),
  );
  const numEchoed = listed.length - generated.length;
  listed.forEach((token, at) => Object.assign(token, { numAsked, isPrompt: at < numEchoed, isDraft: at > numEchoed }));
  const unechoed = hasPrompt || numEchoed ? [] : prompt.map((id) => ({ id, logprob: null, top: [], isPrompt: true }));
  return [...unechoed, ...listed];
}

function tokenOf(name, logprob, top) {
  const others = Object.entries(top ?? {}).map(([name, logprob]) => ({ id: idOf(name), logprob }));
  return { id: idOf(name), logprob, top: others.sort((a, b) => b.logprob - a.logprob) };
}

const idOf = (name) => Number(name.replace("token_id:", ""));
