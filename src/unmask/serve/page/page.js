// The page of `unmask serve`: plain modules of the browser, nothing fetched but the service's own routes.

const WORDS = {
  en: {
    skip: "Skip to the content", subtitle: "T5 and ELECTRA, looked at while they work",
    model: "Model", language: "Language", theme: "Colours", auto: "system", light: "light", dark: "dark", key: "API key",
    functions: "What the model can do", all: "All numbers",
    stop: "Stop", working: "Working …", done: "Done.", stopped: "Stopped.", seconds: (n) => `Done in ${n} s.`,
    nothing: "This model offers nothing that the page can show.",
    write: "Write", write_about: "T5 reads the text and writes its answer, token by token.", write_run: "Write",
    fill: "Fill gaps", fill_about: "Mark each gap with ___ (three underscores). T5 fills gaps token by token; ELECTRA names what it would put there.", fill_run: "Fill",
    detect: "Suspicion", detect_about: "The discriminator says of each token how likely it was replaced. Choose a token to see what the generator would write there.", detect_run: "Judge",
    rounds: "Rounds", rounds_about: "ELECTRA continues the text: all places are open at first, the surest are kept, the most suspicious are sent back and written again.", rounds_run: "Write",
    explain: "Why", explain_about: "Integrated gradients: how much each token speaks for (blue) or against (orange) an outcome.", explain_run: "Explain",
    task: "Task", task_about: (name) => `What the model has learnt: ${name}.`, task_run: "Ask",
    text: "Text", prefix: "The answer begins with", tokens: "Tokens at most", target: "Text or label to explain (empty: the model's own)",
    filled: "With its gaps filled", gaps: "Gaps", gap: (n) => `Gap ${n}`, alternatives: "Alternatives", alternatives_at: (t) => `What the generator would write for “${t}”`,
    token: "Token", probability: "Probability", suspicion: (t, p) => `${t}: replaced with probability ${p}`,
    round: (n) => `Round ${n}`, open: "open", sent: (n) => `${n} sent back`, kept: (n) => `${n} still open`, result: "Result",
    prediction: "Answer", confidence: "Confidence", evidence: "Evidence", label: "Label", logit: "Logit",
    written: "Written (choose a token)", source: "Evidence in the source", so_far: "Evidence in what was written before",
    alignment: "Cross-attention: where the decoder looks", strongest: "Strongest evidence", share: "Share",
    delta: (d) => `The shares add up to the output's change but for ${d} (convergence delta).`,
    share_of: (t, s) => `${t}: ${s}`, output: (o, b) => `Output ${o}, without the text ${b}.`, why_label: (l) => `Why “${l}”`,
    about_place: (t) => `Evidence for the suspicion of “${t}”`, about_gap: (t) => `Evidence for “${t}” in the gap`,
  },
  zh: {
    skip: "跳到内容", subtitle: "看 T5 与 ELECTRA 如何工作",
    model: "模型", language: "语言", theme: "配色", auto: "跟随系统", light: "浅色", dark: "深色", key: "API 密钥",
    functions: "模型的功能", all: "全部数值",
    stop: "停止", working: "进行中……", done: "完成。", stopped: "已停止。", seconds: (n) => `完成，用时 ${n} 秒。`,
    nothing: "此模型没有本页能展示的功能。",
    write: "写作", write_about: "T5 读入文本，逐个词元写出答案。", write_run: "写",
    fill: "填空", fill_about: "用 ___（三个下划线）标出空处。T5 逐个词元填写；ELECTRA 给出它的候选。", fill_run: "填",
    detect: "可疑度", detect_about: "判别器给出每个词元被替换过的概率。选一个词元，可看生成器会写什么。", detect_run: "判断",
    rounds: "多轮写作", rounds_about: "ELECTRA 续写文本：起初所有位置都是空的，留下最有把握的，把最可疑的退回重写。", rounds_run: "写",
    explain: "为什么", explain_about: "积分梯度：每个词元支持（蓝）或反对（橙）结果的程度。", explain_run: "解释",
    task: "任务", task_about: (name) => `模型学会的任务：${name}。`, task_run: "提问",
    text: "文本", prefix: "答案的开头", tokens: "最多词元数", target: "要解释的文本或标签（留空：模型自己的）",
    filled: "填好的文本", gaps: "空处", gap: (n) => `空 ${n}`, alternatives: "候选", alternatives_at: (t) => `生成器在“${t}”处会写`,
    token: "词元", probability: "概率", suspicion: (t, p) => `${t}：被替换的概率 ${p}`,
    round: (n) => `第 ${n} 轮`, open: "空", sent: (n) => `退回 ${n} 个`, kept: (n) => `还空 ${n} 个`, result: "结果",
    prediction: "答案", confidence: "置信度", evidence: "依据", label: "标签", logit: "Logit",
    written: "写出的文本（选一个词元）", source: "原文中的依据", so_far: "已写部分中的依据",
    alignment: "交叉注意力：解码器看向何处", strongest: "最强的依据", share: "份额",
    delta: (d) => `各份额之和与输出变化之差为 ${d}（收敛误差）。`,
    share_of: (t, s) => `${t}：${s}`, output: (o, b) => `输出 ${o}，没有文本时 ${b}。`, why_label: (l) => `为什么是“${l}”`,
    about_place: (t) => `“${t}”可疑的依据`, about_gap: (t) => `空处为“${t}”的依据`,
  },
};

const EXAMPLES = {
  write: "The river rose in the night.", fill: "The king of ___ was born in ___.",
  detect: "The chef ate the meal in the kitchen.", rounds: "The river rose in the night and", explain: "The river rose in the night.",
};
const CONTEXTS = "/v1/";
/** The name of a field that no column of a task has. */
const OUTCOME = "the outcome to explain";
const state = { models: [], model: null, tab: null, language: "en", running: null };

// --- small things -------------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const say = (name, ...given) => {
  const word = WORDS[state.language][name];
  return typeof word === "function" ? word(...given) : word;
};

/** An element; text is always text, never markup. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat());
  return made;
}

/** Between two rounds, so that one can watch; not for whom movement is too much. */
const pause = () => new Promise((resolve) => {
  setTimeout(resolve, matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 350);
});
const number = (value, digits = 3) => (value === null ? "–" : Number(value).toFixed(digits));
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const stored = {
  get: (name) => { try { return localStorage.getItem(`unmask.${name}`); } catch { return null; } },
  set: (name, value) => { try { localStorage.setItem(`unmask.${name}`, value); } catch { /* a browser that keeps nothing */ } },
};

/** Pieces of words as a reader knows them. */
const shown = (token) => token.replace(/^##/, "").replace(/^▁/, "") || token;
function joined(tokens) {
  return tokens.map((token, place) => (token.startsWith("##") || place === 0 ? token.replace(/^##/, "") : ` ${token}`)).join("");
}

function headers() {
  const key = $("key").value.trim();
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function failure(response) {
  try { return (await response.json()).error.message; } catch { return `${response.status} ${response.statusText}`; }
}

async function ask(route, body) {
  const response = await fetch(CONTEXTS + route, {
    method: "POST", headers: headers(), signal: state.running.signal,
    body: JSON.stringify({ model: state.model.id, ...body }),
  });
  if (!response.ok) throw new Error(await failure(response));
  return response.json();
}

/** Server-sent events of a route, one object each. */
async function* stream(route, body) {
  const response = await fetch(CONTEXTS + route, {
    method: "POST", headers: headers(), signal: state.running.signal,
    body: JSON.stringify({ model: state.model.id, stream: true, ...body }),
  });
  if (!response.ok) throw new Error(await failure(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

// --- what is drawn ------------------------------------------------------------------------------------------------

const heading = (text) => el("h2", {}, text);

/** Colour an element for a share: the theme's colour, as strong as it is large. */
function colour(part, share, largest) {
  const strength = largest > 0 ? Math.min(1, Math.abs(share) / largest) : 0;
  part.classList.add(share >= 0 ? "for" : "against");
  part.style.setProperty("--strength", `${(65 * strength).toFixed(1)}%`);
}

/** Tokens with a number each: with `choose`, buttons of which one is pressed; else with a table of all numbers, for
 *  whom colours say nothing. */
function tokens(names, shares, { describe, write = number, choose = null, pressed = null, largest = null, note = null }) {
  const most = largest ?? Math.max(...shares.map(Math.abs), 1e-12);
  const row = el("div", { class: "tokens" });
  names.forEach((name, place) => {
    const label = describe(name, shares[place]);
    const part = choose
      ? el("button", { type: "button", class: "token", title: label, "aria-label": label, "aria-pressed": String(place === pressed), onclick: () => choose(place, part) }, shown(name))
      : el("span", { class: "token", title: label, role: "img", "aria-label": label }, shown(name));
    colour(part, shares[place], most);
    const more = note?.(shares[place]);
    if (more) part.append(el("sup", { "aria-hidden": "true" }, more));
    row.append(part, document.createTextNode(" "));
  });
  if (choose) return row;
  const numbers = names.map((name, place) => [shown(name), write(shares[place])]);
  return el("div", {}, row, el("details", {}, el("summary", {}, say("all")), table([say("token"), say("share")], numbers)));
}

function table(head, rows) {
  return el("div", { class: "wide" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", { class: typeof cell === "string" && /^(-?\d[\d.]*( %)?|–)$/.test(cell) ? "number" : null }, cell)))))));
}

function strongest(names, shares) {
  const order = names.map((name, place) => [name, shares[place]]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  return [el("p", { class: "note" }, say("strongest")), table([say("token"), say("share")], order.slice(0, 5).map(([name, share]) => [shown(name), number(share)]))];
}

const describe_share = (name, share) => say("share_of", shown(name), number(share));

// --- functions ----------------------------------------------------------------------------------------------------

const field = (name, label, value, kind = "textarea") =>
  el("label", {}, el("span", {}, label), kind === "textarea" ? filled(el("textarea", { name, spellcheck: "false" }), value) : el("input", { name, type: kind, value, min: 1, max: 256 }));
function filled(area, value) { area.value = value; return area; }

/** Each function: whether a model can do it, its fields, and what happens. */
const TABS = {
  write: {
    can: (model) => model.can.includes("write"),
    fields: () => [field("text", say("text"), EXAMPLES.write), field("prefix", say("prefix"), "", "text"), field("tokens", say("tokens"), 48, "number")],
    async run(given, result) {
      const text = el("div", { class: "text", "aria-live": "polite", role: "log", "aria-label": say("result"), id: "written" });
      result.append(heading(say("result")), text);
      const body = { prompt: given.text, max_tokens: Number(given.tokens), decoder_prefix: given.prefix };
      for await (const event of stream("completions", body)) text.append(event.choices[0]?.text ?? "");
    },
  },
  task: {
    can: (model) => ["classify", "tag", "answer"].some((route) => model.can.includes(route)),
    about: () => say("task_about", state.model.task),
    fields: () => state.model.columns.map((column) => field(column, column, "")),
    async run(given, result) {
      const route = ["classify", "tag", "answer"].find((one) => state.model.can.includes(one));
      const [found] = (await ask(route, { input: given })).data;
      result.append(heading(say("prediction")), el("div", { class: "text", id: "answer" }, found.prediction));
      if (found.confidence !== null) result.append(el("p", {}, `${say("confidence")}: ${percent(found.confidence)}`));
      if (route === "classify" && state.model.can.includes("explain")) {
        await why(given, state.model.family === "t5" ? found.prediction : "", result);
      }
    },
  },
  fill: {
    can: (model) => model.can.includes("fill"),
    fields: () => [field("text", say("text"), EXAMPLES.fill)],
    async run(given, result) {
      const text = el("div", { class: "text", "aria-live": "polite", "aria-atomic": "true", role: "log", "aria-label": say("filled"), id: "filled" });
      result.append(heading(say("filled")), text);
      const parts = given.text.split("___");
      const put = (gaps) => text.replaceChildren(...parts.flatMap((part, place) => (place < gaps.length ? [part, el("mark", {}, gaps[place])] : [part])));
      if (state.model.family === "t5") {
        put(parts.slice(1).map(() => "…"));
        for await (const event of stream("fill", { input: given.text })) put(event.gaps);
        return;
      }
      const [found] = (await ask("fill", { input: given.text, at_least: 1, at_most: 1, alternatives: 8 })).data;
      put(found.gaps);
      found.alternatives.forEach((some, place) => result.append(heading(`${say("gap", place + 1)}: ${say("alternatives")}`), proposals(some)));
    },
  },
  detect: {
    can: (model) => model.can.includes("detect"),
    fields: () => [field("text", say("text"), EXAMPLES.detect)],
    async run(given, result) {
      const [found] = (await ask("detect", { input: given.text })).data;
      const more = el("div", { "aria-live": "polite", id: "alternatives" });
      const choose = async (place, part) => {
        part.parentElement.querySelectorAll("button").forEach((one) => one.setAttribute("aria-pressed", String(one === part)));
        const masked = found.tokens.with(place, "___");
        await working(async () => {
          const [fill] = (await ask("fill", { input: joined(masked), at_least: 1, at_most: 1, alternatives: 8 })).data;
          more.replaceChildren(heading(say("alternatives_at", shown(found.tokens[place]))), proposals(fill.alternatives[0]));
        });
      };
      const row = tokens(found.tokens, found.suspicion.map((share) => -share), {
        describe: (name, share) => say("suspicion", shown(name), percent(-share)), write: (share) => percent(-share),
        choose: state.model.can.includes("fill") ? choose : null, largest: 1,
        // Not by colour alone.
        note: (share) => (-share >= 0.5 ? `${Math.round(-100 * share)}%` : null),
      });
      row.id = "suspicion";
      result.append(heading(say("result")), row, more);
    },
  },
  rounds: {
    can: (model) => model.can.includes("rounds"),
    fields: () => [field("text", say("text"), EXAMPLES.rounds), field("tokens", say("tokens"), 12, "number")],
    async run(given, result) {
      const list = el("ol", { class: "rounds", id: "rounds" });
      result.append(list);
      let all = null;
      for await (const { tokens: names, open, sent_back, text } of stream("rounds", { input: given.text, max_tokens: Number(given.tokens) })) {
        if (text !== undefined) {
          result.append(heading(say("result")), el("div", { class: "text", id: "written" }, text));
          return;
        }
        if (list.children.length) await pause();
        all ??= open;
        const row = el("div", { class: "tokens" });
        names.forEach((name, place) => {
          const part = open.includes(place)
            ? el("span", { class: "token open", title: say("open"), role: "img", "aria-label": say("open") }, "▢")
            : el("span", { class: all.includes(place) ? "token fresh" : "token" }, shown(name));
          row.append(part, document.createTextNode(" "));
        });
        const said = open.length ? say(sent_back ? "sent" : "kept", open.length) : "";
        list.append(el("li", {}, el("p", { class: "note" }, said), row));
        // Rows of tokens are too much to be read out while they come: their number and what happened is not.
        $("status").textContent = [say("round", list.children.length), said].filter(Boolean).join(": ");
      }
    },
  },
  explain: {
    can: (model) => model.can.includes("explain"),
    fields: () => [
      ...(state.model.columns?.map((column) => field(column, column, "")) ?? [field("text", say("text"), EXAMPLES.explain)]),
      ...(state.model.family === "t5" || state.model.task ? [field(OUTCOME, say("target"), "", "text")] : []),
    ],
    async run({ [OUTCOME]: outcome, ...given }, result) {
      await why(state.model.task ? given : given.text, outcome, result);
    },
  },
};

/** What an outcome rests on.
 *  @param input a text, or a row of the task that the model has learnt
 *  @param outcome the text or label to explain; empty: the model's own */
async function why(input, outcome, result) {
  const found = await ask("explain", { input, ...(outcome ? { target: outcome } : {}) });
  if (found.target) why_written(found, result);
  else why_judged(found, result);
}

function proposals(some) {
  return table([say("token"), say("probability")], some.map(({ token, probability }) => [shown(token), percent(probability)]));
}

/** T5: each written token's evidence over source and written prefix, and where cross-attention looks. */
function why_written(found, result) {
  const parts = el("div", { id: "evidence", "aria-live": "polite" });
  const choose = (place) => {
    row.querySelectorAll("button").forEach((one, other) => one.setAttribute("aria-pressed", String(other === place)));
    const both = [...found.source_shares[place], ...found.prefix_shares[place].slice(0, place + 1)];
    const largest = Math.max(...both.map(Math.abs), 1e-12);
    const options = { describe: describe_share, largest };
    const attention = found.cross_attention[place];
    const evidence = [
      heading(say("source")), tokens(found.source, found.source_shares[place], options),
      heading(say("so_far")), tokens(found.prefix.slice(0, place + 1), found.prefix_shares[place].slice(0, place + 1), options),
      ...strongest([...found.source, ...found.prefix.slice(0, place + 1)], both),
      el("p", { class: "note" }, say("output", number(found.log_probabilities[place]), number(found.baselines[place])), " ", say("delta", found.deltas[place].toExponential(1))),
      heading(say("alignment")), tokens(found.source, attention, { describe: (name, share) => say("share_of", shown(name), percent(share)), write: percent }),
    ];
    parts.replaceChildren(...evidence);
  };
  const row = tokens(found.target, found.log_probabilities.map((share) => Math.exp(share)), {
    describe: (name, share) => say("share_of", shown(name), percent(share)), choose, pressed: 0, largest: 1,
  });
  row.id = "target";
  result.append(heading(say("written")), row, parts);
  choose(0);
}

/** ELECTRA: the evidence for a label, a suspicion, or a proposal. */
function why_judged(found, result) {
  const about = found.label !== undefined ? say("why_label", found.label)
    : found.token !== undefined ? say("about_gap", shown(found.token)) : say("about_place", shown(found.tokens[found.place]));
  const row = tokens(found.tokens, found.shares, { describe: describe_share });
  row.id = "evidence";
  result.append(heading(about), row, ...strongest(found.tokens, found.shares));
  if (found.logits) result.append(table([say("label"), say("logit")], Object.entries(found.logits).map(([label, logit]) => [label, number(logit)])));
  result.append(el("p", { class: "note" }, say("output", number(found.output), number(found.baseline)), " ", say("delta", found.delta.toExponential(1))));
}

// --- the page -----------------------------------------------------------------------------------------------------

/** Run something that may fail or be stopped, and say how it went. */
async function working(work) {
  state.running?.abort();
  const running = new AbortController();
  state.running = running;
  $("problem").textContent = "";
  $("status").textContent = say("working");
  $("stop").hidden = false;
  $("result").setAttribute("aria-busy", "true");
  const began = performance.now();
  try {
    await work();
    if (state.running === running) $("status").textContent = say("seconds", ((performance.now() - began) / 1000).toFixed(1));
  } catch (problem) {
    if (state.running !== running) return;
    $("status").textContent = problem.name === "AbortError" ? say("stopped") : "";
    if (problem.name !== "AbortError") $("problem").textContent = problem.message;
  } finally {
    if (state.running === running) {
      // Who has used it is not left without a place.
      if (document.activeElement === $("stop")) $("run").focus();
      leave();
    }
  }
}

/** End what runs, and have the page as it is when nothing does. */
function leave() {
  state.running?.abort();
  state.running = null;
  $("stop").hidden = true;
  $("result").removeAttribute("aria-busy");
}

function show_tab(name) {
  leave();
  state.tab = name;
  for (const tab of $("tabs").children) {
    const chosen = tab.dataset.tab === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
  $("panel").setAttribute("aria-labelledby", `tab-${name}`);
  const tab = TABS[name];
  $("about").textContent = tab ? (tab.about ?? (() => say(`${name}_about`)))() : say("nothing");
  $("fields").replaceChildren(...(tab ? tab.fields() : []));
  $("run").textContent = tab ? say(`${name}_run`) : "";
  $("run").hidden = !tab;
  $("result").replaceChildren();
  $("status").textContent = $("problem").textContent = "";
}

function show_model() {
  state.model = state.models.find((model) => model.id === $("model").value) ?? null;
  const names = state.model ? Object.keys(TABS).filter((name) => TABS[name].can(state.model)) : [];
  $("tabs").replaceChildren(...names.map((name) =>
    el("button", { role: "tab", type: "button", id: `tab-${name}`, "data-tab": name, "aria-controls": "panel", onclick: () => show_tab(name) }, say(name))));
  show_tab(names.includes(state.tab) ? state.tab : names[0] ?? null);
}

function move_between_tabs(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const tabs = [...$("tabs").children];
  const next = event.key === "Home" ? 0 : event.key === "End" ? tabs.length - 1 : step ? (tabs.indexOf(event.target) + step + tabs.length) % tabs.length : null;
  if (next === null) return;
  event.preventDefault();
  show_tab(tabs[next].dataset.tab);
  tabs[next].focus();
}

function show_language(language) {
  state.language = language;
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.querySelectorAll("[data-text]").forEach((part) => { part.textContent = say(part.dataset.text); });
  $("language").value = language;
  $("tabs").setAttribute("aria-label", say("functions"));
  if (state.models.length) show_model();
}

function show_theme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").value = theme;
}

async function load_models() {
  $("problem").textContent = "";
  const response = await fetch(`${CONTEXTS}models`, { headers: headers() });
  $("key-field").hidden = response.ok && !$("key").value;
  if (!response.ok) { $("problem").textContent = await failure(response); return; }
  state.models = (await response.json()).data;
  $("model").replaceChildren(...state.models.map((model) => el("option", { value: model.id }, model.id)));
  show_model();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = Object.fromEntries(new FormData($("form")));
  $("result").replaceChildren();
  working(() => TABS[state.tab].run(given, $("result")));
});
$("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
$("stop").addEventListener("click", () => state.running?.abort());
$("model").addEventListener("change", show_model);
$("tabs").addEventListener("keydown", move_between_tabs);
$("key").addEventListener("change", load_models);
$("language").addEventListener("change", () => { stored.set("language", $("language").value); show_language($("language").value); });
$("theme").addEventListener("change", () => { stored.set("theme", $("theme").value); show_theme($("theme").value); });
show_theme(stored.get("theme") ?? "auto");
show_language(stored.get("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
load_models().catch((problem) => { $("problem").textContent = problem.message; });
