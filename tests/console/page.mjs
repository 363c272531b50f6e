// SPDX-License-Identifier: MIT
// The console's page in a browser, over the dashboard sample: it loads from nowhere else, moves, shows what the
// snapshot says, turns the gate by mouse and by keyboard, fits narrow screens, can be read in light and dark, leaks
// nothing, and without a token only shows.
//
//     node page.mjs DASHBOARD [--seconds 20] [--shots DIRECTORY]
//
// --seconds: how long to watch for leaks; --shots: leave console-light.png and console-dark.png there. Needs
// playwright-core (npm install playwright-core, NODE_PATH=…/node_modules) and chromium (CHROMIUM=/usr/bin/chromium);
// without them: 77.

import {spawn} from "node:child_process";
import {existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync} from "node:fs";
import {createRequire} from "node:module";
import {tmpdir} from "node:os";
import {join} from "node:path";
import {createInterface} from "node:readline";
import {parseArgs} from "node:util";

const {values: options, positionals: [program]} = parseArgs({
  allowPositionals: true, options: {seconds: {type: "string", default: "20"}, shots: {type: "string"}}});
const browser_program = process.env.CHROMIUM || "/usr/bin/chromium";

const skip = why => { console.log("skipped: " + why); process.exit(77); };
let chromium;
try {
  chromium = createRequire(import.meta.url)("playwright-core").chromium;  // unlike import, this looks into NODE_PATH
} catch {
  skip("there is no playwright-core in NODE_PATH");
}
if (!existsSync(browser_program)) skip(`there is no ${browser_program}`);

const check = (is, what) => { if (!is) throw new Error("not so: " + what); };
const pause_for = ms => new Promise(done => setTimeout(done, ms));
const until = async (asked, what, patience = 60000) => {
  for (const end = Date.now() + patience; ; await pause_for(100)) {
    const found = await asked();
    if (found) return found;
    check(Date.now() < end, what + " (waited in vain)");
  }
};
const shown = what => console.log("ok: " + what);

const units = {"": 1, K: 1e3, M: 1e6, B: 1e9};
const parsed = text => /^([\d,]*\.?\d+)([KMB]?)$/.exec(text) || [text, "NaN", ""];
const number_in = text => Number(parsed(text)[1].replaceAll(",", "")) * units[parsed(text)[2]];
const agrees = (text, number) => {  // exactly, if it is not shortened
  const unit = parsed(text)[2];
  return unit === "" ? number_in(text) === number : Math.abs(number_in(text) - number) <= 0.0501 * units[unit];
};

// ---- the program and the browser ----
const secret = "0123456789abcdef0123456789abcdef";
const folder = mkdtempSync(join(tmpdir(), "page-"));
writeFileSync(join(folder, "token"), secret + "\n");
const start = async (...args) => {
  const child = spawn(program, ["--port", "0", ...args], {stdio: ["ignore", "pipe", "inherit"]});
  const ended = new Promise(done => child.on("exit", status => done(status)));
  const at = await new Promise((done, failed) => {
    createInterface({input: child.stdout}).once("line", done);
    ended.then(status => failed(new Error(`${program} ended with ${status}`)));
  });
  return {child, ended, at};
};
const {child: server, ended: server_ended, at: url} = await start("--token-file", join(folder, "token"));
const began = Date.now();
// Again, if it fails: on a slow machine, a connection that fetch has kept may have been closed meanwhile.
const ask = (...what) => fetch(...what).catch(() => fetch(...what));
const get = async path => (await ask(url + path)).json();
const snapshot = () => get("snapshot.json");
const operation = async name => (await snapshot()).operations.find(one => one.operation === name);
const living = async name => (await get("tokens.json?operation=" + encodeURIComponent(name))).total;
const gate = (action, name, at = url) => ask(at + "gate/" + action, {
  method: "POST", headers: {"Authorization": "Bearer " + secret}, body: JSON.stringify({operation: name})});

const browser = await chromium.launch({executablePath: browser_program, args: ["--no-sandbox"]});  // root has none
let failed = false, page = null;
try {
  page = await browser.newPage({viewport: {width: 1280, height: 900}, colorScheme: "light"});
  const complaints = [], asked = new Set(), elsewhere = [];
  page.on("console", said => { if (["error", "warning"].includes(said.type())) complaints.push(said.text()); });
  page.on("pageerror", error => complaints.push(String(error)));
  page.context().on("request", request => {
    const to = new URL(request.url());
    if (to.href.startsWith(url)) asked.add(to.pathname);
    else if (to.protocol !== "data:") elsewhere.push(to.href);
  });
  page.on("websocket", socket => elsewhere.push(socket.url()));
  const silent = what => check(complaints.length === 0, `${what} without complaints: ${complaints.join("; ")}`);

  // ---- it is for this machine ----
  const {hostname, port} = new URL(url);
  check(hostname === "127.0.0.1", `${url} is on this machine only`);
  const hexadecimal = Number(port).toString(16).toUpperCase().padStart(4, "0");
  const listening = ["tcp", "tcp6"].flatMap(kind => {
    try {
      return readFileSync("/proc/net/" + kind, "utf8").split("\n").map(line => line.trim().split(/\s+/));
    } catch {
      return [];  // a machine without IPv6
    }
  }).filter(line => line[3] === "0A" && line[1].endsWith(":" + hexadecimal)).map(line => line[1]);
  check(listening.join() === "0100007F:" + hexadecimal, `it listens at 127.0.0.1 and nowhere else: ${listening}`);

  // ---- it loads and moves ----
  await page.goto(url);
  await page.waitForSelector("#status[data-is=live]");
  const names = (await until(async () => {
    const all = (await snapshot()).operations.map(one => one.operation);
    return all.length >= 14 && all;
  }, "all operations are counted")).sort();
  const row_names = page.locator("#operation-rows th");
  await until(async () => (await row_names.count()) === names.length, "a row for each operation");
  check((await row_names.allTextContents()).sort().join() === names.join(), "rows bear the names");
  await until(async () => (await page.locator("#operation-rows .grade").allTextContents()).every(text =>
    /^(excellent|healthy|at risk|problematic)$/.test(text)), "a grade for each operation");
  for (const row of await page.locator("#operation-rows tr").all()) check(await row.isVisible(), "each row can be seen");
  shown(`${names.length} operations, each with a row and a grade`);

  const number = async name => {
    const pair = page.locator("#numbers > div", {has: page.locator(`dt:text-is("${name}")`)});
    return number_in(await pair.locator("dd").textContent());
  };
  const ended = await number("ended");
  await until(async () => (await number("ended")) > ended && (await number("ended per second")) > 0, "numbers move");
  const history = () => page.locator("#core-rows path").first().getAttribute("d");
  const drawn = await history();
  await until(async () => (await history()) !== drawn, "the cores' history moves");
  silent("it loads and moves");
  shown("numbers and the cores' history move");

  // ---- what it shows is what the snapshot says ----
  const read = () => page.evaluate(() => {
    const text = node => node.textContent.trim(), at = id => document.getElementById(id);
    const table = body => {
      const heads = [...body.closest("table").querySelectorAll("thead th")];
      return [...body.rows].map(row => Object.fromEntries([...row.cells].map((cell, i) =>
        [heads[i].getAttribute("aria-label") || text(heads[i]), text(cell)])));
    };
    return {
      status: at("status").dataset.is,
      numbers: Object.fromEntries([...document.querySelectorAll("#numbers > div")].map(pair =>
        [text(pair.querySelector("dt")), text(pair.querySelector("dd"))])),
      states: Object.fromEntries([...document.querySelectorAll("#legend li")].map(line => text(line).split(" "))),
      cores: table(at("core-rows")),
      bars: [...document.querySelectorAll("#core-rows .bar i")].map(bar =>
        Number(/[\d.]+/.exec(bar.style.transform)[0])),
      operations: table(at("operation-rows")),
      domains: table(at("domain-rows")),
      domains_seen: at("domain-rows").checkVisibility(),
      pins: text(at("pins")),
      more: at("domains-more").hidden ? "" : text(at("domains-more")),
    };
  });
  // The page asks for the next snapshot when it has drawn one: what can be read then is what it made of that one,
  // which came through here. Collects {said, shown, before}, `before` being what it had drawn before, if known, until
  // `enough` is true of them.
  const watch = async (enough, what, first = async () => {}) => {
    const seen = [];
    let drawn = null, given = null, over = false, failure = null;
    const pattern = url + "snapshot.json";
    await page.route(pattern, async route => {
      try {
        if (given && !over) {
          const now = await read();
          if (now.status !== "lost") {  // else it did not wait for it
            seen.push({before: drawn, said: given, shown: now});
            drawn = given;
          }
          if (seen.length > 0 && enough(seen)) over = true;
        }
        if (!given) await first();
        const response = await route.fetch();
        given = await response.json();
        await route.fulfill({response});
      } catch (error) {
        failure ??= error;
        await route.abort().catch(() => {});
      }
    });
    try {
      await until(() => { if (failure) throw failure; return over; }, what);
    } finally {
      await page.unroute(pattern);
    }
    return seen;
  };
  const shares = ({before, said}) => said.cores.map(core => {
    const was = before.cores.find(one => one.executor === core.executor);
    return Math.min(1, (core.busy_ns - was.busy_ns) / ((said.uptime_ms - before.uptime_ms) * 1e6));
  });
  const busy = ({shown}) => shown.cores.map(core => parseFloat(core.Busy));
  const workers = values => values.slice(0, -1);  // the control loop is the last
  const compare_one = one => {
    const {said, shown: page_says} = one;
    const alive = Object.values(said.tokens).reduce((a, b) => a + b);
    for (const [name, value] of [["alive", alive], ["ended", said.ended], ["waiting for a core", said.waiting],
                                 ["waiting for storage", said.waiting_for_permit], ["held at the gate", said.held],
                                 ["domains", said.domains], ["pins", said.pins]])
      check(agrees(page_says.numbers[name], value), `${name}: ${page_says.numbers[name]} shown for ${value}`);
    check(Object.keys(page_says.states).join() === Object.keys(said.tokens).join(), "the states have their names");
    for (const [name, value] of Object.entries(said.tokens))
      check(agrees(page_says.states[name], value), `${name}: ${page_says.states[name]} shown for ${value}`);

    check(page_says.cores.length === said.cores.length, "a row for each core");
    said.cores.forEach((core, i) => {
      const row = page_says.cores[i], name = core.core === null ? "control" : String(core.core);
      check(row.Core === name || row.Core.startsWith(name + " ("), `${row.Core} is core ${name}`);
      check(agrees(row.Queue, core.queued), `queue of ${name}: ${row.Queue} shown for ${core.queued}`);
      check(/^\d+(\.\d)? %$/.test(row.Busy), `${row.Busy} is a share`);
      check(row.State === (core.parked ? "asleep" : "awake"), `${row.State} shown for parked ${core.parked}`);
      if (!one.before) return;
      const part = shares(one)[i];
      check(Math.abs(parseFloat(row.Busy) / 100 - part) < 0.0051, `busy of ${name}: ${row.Busy} shown for ${part}`);
      check(Math.abs(page_says.bars[i] - part) < 0.001, `bar of ${name}: ${page_says.bars[i]} shown for ${part}`);
    });

    check(page_says.operations.length === said.operations.length, "a row for each operation");
    for (const {operation: name, ...says} of said.operations) {
      const row = page_says.operations.find(each => each.Operation === name);
      check(row && row.Health === says.grade, `${name}: ${row?.Health} shown for ${says.grade}`);
      check(agrees(row.Runs, says.completed + says.failed + says.timed_out), `${name}: ${row.Runs} runs`);
      check((row.Gate === "open") === (!says.paused && !says.blocked), `${name} is ${row.Gate}`);
    }

    const listed = said.live_domains.slice(0, 10), more = said.domains - listed.length;
    check(page_says.domains.map(row => [row.Lead, row.Core, row.Tokens]).join(";") ===
          listed.map(each => [each.lead, each.core ?? "–", each.tokens]).join(";"),
          `domains: ${JSON.stringify(page_says.domains)} shown for ${JSON.stringify(listed)}`);
    check(page_says.domains_seen === listed.length > 0, "domains can be seen");
    check(page_says.more === (listed.length > 0 && more > 0 ? `and ${more} more` : ""), `"${page_says.more}": ${more}`);
    const [, pins, redirections] = /^(\S+) pins · (\S+) redirected$/.exec(page_says.pins) || ["", "", ""];
    check(agrees(pins, said.pins) && agrees(redirections, said.redirections),
          `${page_says.pins} shown for ${said.pins}, ${said.redirections}`);
  };
  const compare = seen => seen.forEach(compare_one);
  const under_load = await watch(seen => {
    const known = seen.filter(one => one.before), some = of => seen.some(({shown: page_says}) => of(page_says));
    return known.length >= 3 &&
      known[0].shown.cores.every((_, i) =>
        known.some(one => busy(one)[i] > 0) && new Set(known.map(one => one.shown.cores[i].Busy)).size > 1) &&
      some(one => number_in(one.numbers.domains) > 0) && some(one => one.domains.length > 0) &&
      some(one => number_in(one.numbers.pins) > 0) && some(one => number_in(one.states.executing) > 0) &&
      some(one => new Set(one.operations.map(row => row.Health)).size > 1);
  }, "under load every core's busy share moves, there are domains, pins and healths that differ");
  compare(under_load);
  shown("cores, tokens by state, healths, domains and pins are those of the snapshot, and move");

  // ---- by keyboard ----
  const from_the_top = () => page.evaluate(() => {  // Tab goes on from where the focus was last
    const top = document.createElement("i");
    top.tabIndex = -1;
    document.body.prepend(top);
    top.focus();
    top.remove();
  });
  const stops = async () => {  // what Tab comes to, from top to bottom, each with its focus to be seen
    await from_the_top();
    const found = [];
    for (;;) {
      await page.keyboard.press("Tab");
      const at = await page.evaluate(() => {
        const node = document.activeElement, style = getComputedStyle(node);
        if (node === document.body) return null;
        if (!node.dataset.stop) node.dataset.stop = String(Math.random());
        return {key: node.dataset.stop, what: node.getAttribute("aria-label") || node.id || node.textContent.trim(),
                outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2};
      });
      if (!at || found.some(one => one.key === at.key)) return found.map(one => one.what);
      check(at.outlined, `the focus on ${at.what} can be seen`);
      found.push(at);
      check(found.length < 200, "Tab comes round");
    }
  };
  const press = async what => {  // by Tab and Enter alone
    await from_the_top();
    for (let i = 0; i < 200; ++i) {
      await page.keyboard.press("Tab");
      const [label, id] = await page.evaluate(() =>
        [document.activeElement.getAttribute("aria-label"), document.activeElement.id]);
      if (what === label || what === id) return page.keyboard.press("Enter");
    }
    check(false, `Tab comes to ${what}`);
  };
  const locked = await stops();
  check(locked.join().startsWith("token,Enable controls"), "without a token, Tab comes to where it is entered");
  const turns = (which = page) => which.locator("#all-pause, #all-drain, td.turns button");
  check((await turns().count()) === 2 + 2 * names.length, "two controls for all, and for each operation");
  for (const one of await turns().all()) check(await one.isDisabled(), "no control can be used without a token");
  check(!locked.some(what => /^(Pause|Resume|Drain|all-)/.test(what)), "Tab passes them by");

  // ---- a wrong token ----
  await page.locator("#token").focus();
  await page.keyboard.type("f".repeat(32));
  await page.keyboard.press("Enter");
  await page.getByRole("button", {name: "Pause sort"}).click();
  await page.waitForSelector("#said[data-is=bad]");
  check(/refused/.test(await page.locator("#said").textContent()), "the page says that the token was refused");
  check(await page.evaluate(() => document.activeElement.id === "token"), "and asks for another one");
  check(!(await operation("sort")).paused, "nothing was paused");
  check(complaints.splice(0).every(text => /401/.test(text)), "the browser notes the refusal only");
  shown("a wrong token is refused, and the page says so");

  // ---- pause and resume by mouse ----
  await page.locator("#token").fill(secret);
  await page.getByRole("button", {name: "Enable controls"}).click();
  check(await page.locator("#token").isHidden(), "the token is not asked for any more");
  check((await snapshot()).held === 0, "nothing is held yet");
  await page.getByRole("button", {name: "Pause sort"}).click();
  await page.getByRole("button", {name: "Resume sort"}).waitFor();
  check(/Paused sort/.test(await page.locator("#said").textContent()), "the page says that it is paused");
  const row = page.locator("#operation-rows tr", {has: page.locator('th:text-is("sort")')});
  check((await row.locator(".gate").textContent()) === "paused", "the row says paused");
  const started = of => of.operations.find(one => one.operation === "sort").started;
  await until(async () => (await number("held at the gate")) > 10, "what comes is held, and the page shows it");
  await until(async () => {
    const one = await snapshot();
    await until(async () => (await snapshot()).ended > one.ended + 500, "others run on");
    return started(one) === started(await snapshot());
  }, "none starts");
  const stood = started(await snapshot());
  await page.getByRole("button", {name: "Resume sort"}).click();
  await until(async () => started(await snapshot()) > stood, "resumed, it goes on");
  await page.getByRole("button", {name: "Pause sort"}).waitFor();
  shown("pause stops an operation, resume lets it go on");

  // ---- one click while the one before has no answer yet ----
  const heard = [];
  let answer_them;
  const answered = new Promise(resolve => { answer_them = resolve; });
  await page.route("**/gate/*", async route => {
    heard.push(route.request().postDataJSON().operation);
    await answered;
    await route.continue();
  });
  await page.getByRole("button", {name: "Pause sort"}).click();
  await until(async () => heard.length > 0, "the first is asked for");
  await page.getByRole("button", {name: "Pause hash"}).click();
  check(heard.join() === "sort", "the second waits for the answer to the first");
  answer_them();
  await until(async () => (await operation("sort")).paused && (await operation("hash")).paused, "both are paused");
  check(heard.join() === "sort,hash", `in order: ${heard.join()}`);
  await page.unroute("**/gate/*");
  await page.getByRole("button", {name: "Resume sort"}).click();
  await page.getByRole("button", {name: "Resume hash"}).click();
  await until(async () => !(await operation("sort")).paused && !(await operation("hash")).paused, "both are resumed");
  await page.getByRole("button", {name: "Pause hash"}).waitFor();
  shown("a click while the one before has no answer is done after it");

  // ---- queues: what has been held comes at once ----
  for (const end = Date.now() + 60000;;) {
    await page.getByRole("button", {name: "Pause hash"}).click();
    await until(async () => (await snapshot()).held > 200, "hash is held");
    const seen = await watch(seen => seen.length > 1, "the page goes on", () => gate("resume", "hash"));
    compare(seen);
    if (seen.some(one => one.shown.cores.some(row => number_in(row.Queue) > 0))) break;
    check(Date.now() < end, "a queue is shown");
  }
  shown("the cores' queues are those of the snapshot");

  // ---- drain, of one ----
  await page.getByRole("button", {name: "Drain crunch"}).click();
  await until(async () => /Draining crunch/.test(await page.locator("#said").textContent()), "it says that it drains");
  const drained_row = page.locator("#operation-rows tr", {has: page.locator('th:text-is("crunch")')});
  await until(async () => (await drained_row.locator(".gate").textContent()) === "paused", "the row says paused");
  await until(async () => (await living("console drain")) === 0, "the drain ends", 120000);
  const crunched = (await operation("crunch")).started;
  const others = (await snapshot()).ended;
  await until(async () => (await snapshot()).ended > others + 500, "others run on");
  check((await operation("crunch")).started === crunched, "drained, none starts");
  check((await living("crunch")) > 0, "what comes is held");
  await page.getByRole("button", {name: "Resume crunch"}).click();
  await until(async () => (await operation("crunch")).started > crunched, "resumed, it goes on");
  check(!(await operation("crunch")).paused, "and is open");
  shown("drain lets an operation's tokens end and holds the next, resume lets it go on");

  // ---- the same by keyboard; all ----
  const reached = await stops();
  for (const what of [...names.flatMap(name => [`Pause ${name}`, `Drain ${name}`]), "all-pause", "all-drain", "lock",
                      "snapshot.json", "tokens.json", "metrics", "trace.json"])
    check(reached.includes(what), `Tab comes to ${what}`);
  await press("Pause hash");
  await until(async () => (await operation("hash")).paused, "Enter pauses");
  await page.getByRole("button", {name: "Resume hash"}).waitFor();
  check((await page.evaluate(() => document.activeElement.getAttribute("aria-label"))) === "Resume hash",
        "the focus stays");
  await page.keyboard.press("Enter");
  await until(async () => !(await operation("hash")).paused, "Enter resumes");
  await press("Drain crunch");
  await until(async () => (await operation("crunch")).paused, "Enter drains");
  await page.getByRole("button", {name: "Resume crunch"}).click();
  await until(async () => !(await operation("crunch")).paused, "resumed after a drain");
  await press("all-pause");
  await page.waitForSelector("#status[data-is=paused]");
  check((await snapshot()).paused, "all are paused");
  const last_busy = (seen, of) => seen.at(-1).before && workers(busy(seen.at(-1))).every(of);
  compare(await watch(seen => last_busy(seen, part => part < 1), "paused, the cores have nothing to do"));
  await page.getByRole("button", {name: "Resume all"}).click();
  await page.waitForSelector("#status[data-is=live]");
  compare(await watch(seen => last_busy(seen, part => part > 1), "resumed, they are busy again"));

  await page.getByRole("button", {name: "Drain all"}).click();
  await page.waitForSelector("#status[data-is=paused]");
  check((await snapshot()).paused, "all are drained");  // without an end: the sample's producers are tokens themselves
  await until(async () => /Draining everything/.test(await page.locator("#said").textContent()), "and it says so");
  await page.getByRole("button", {name: "Resume all"}).click();
  await page.waitForSelector("#status[data-is=live]");
  check(!(await snapshot()).paused, "all go on");
  silent("turned");
  shown(`all ${reached.length} stops of Tab can be seen; Enter pauses, drains, resumes`);

  // ---- to be read in light and dark, at any width ----
  const pale = () => page.evaluate(() => {  // text whose contrast is below 4.5 : 1 (disabled controls aside)
    const parts = colour => colour.match(/[\d.]+/g).map(Number);
    const linear = c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = colour => parts(colour).slice(0, 3).map(c => linear(c / 255))
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const has_text = node => [...node.childNodes].some(one => one.nodeType === 3 && one.textContent.trim());
    const behind = node => { for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if ((parts(colour)[3] ?? 1) === 1) return colour;
    } return "rgb(255, 255, 255)"; };
    const poor = [];
    for (const node of document.querySelectorAll("body *:not(script)")) {
      if (node.disabled || !node.checkVisibility() || !has_text(node)) continue;
      const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
      if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(node.textContent.trim().slice(0, 30));
    }
    return poor;
  });
  const backgrounds = [];
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({colorScheme});
    await pause_for(400);  // transitions
    const poor = await pale();
    check(poor.length === 0, `in ${colorScheme}, all can be read: ${poor.join(", ")}`);
    backgrounds.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
  }
  check(backgrounds[0] !== backgrounds[1], "light and dark differ");
  shown("light and dark, every text with a contrast of at least 4.5 : 1");
  for (const width of [320, 420, 768, 1280]) {
    await page.setViewportSize({width, height: 900});
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    check(wide <= width, `at ${width} px nothing scrolls sideways: ${wide} px`);
  }
  shown("no sideways scrolling from 320 px on");

  // ---- pictures, with something to be seen: the breaker opens ----
  if (options.shots) {
    await page.getByRole("button", {name: "Pause write_note"}).click();
    await until(async () => (await operation("charge")).blocked, "the breaker opens", 120000);
    await pause_for(Math.max(3000, 62000 - (Date.now() - began)));  // the history of a minute
    await until(async () => (await operation("charge")).blocked, "the breaker opens", 120000);
    await page.mouse.move(0, 0);
    await pause_for(1500);
    await page.setViewportSize({width: 1280, height: 1160});  // a full page would be cut where it grows meanwhile
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({colorScheme});
      await pause_for(400);
      await page.screenshot({path: join(options.shots, `console-${colorScheme}.png`)});
    }
    await page.setViewportSize({width: 420, height: 900});
    await page.screenshot({path: join(options.shots, "console-narrow.png"), fullPage: true});
    await page.setViewportSize({width: 1280, height: 900});
    await page.getByRole("button", {name: "Resume write_note"}).click();
  }

  // ---- nothing leaks ----
  const tools = await page.context().newCDPSession(page);
  const weigh = async () => {
    for (let i = 0; i < 3; ++i) await tools.send("HeapProfiler.collectGarbage");
    const {usedSize} = await tools.send("Runtime.getHeapUsage"), dom = await tools.send("Memory.getDOMCounters");
    const rss = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, "utf8"))[1]);
    return {heap_kib: Math.round(usedSize / 1024), nodes: dom.nodes, listeners: dom.jsEventListeners,
            server_rss_kib: rss, server_descriptors: readdirSync(`/proc/${server.pid}/fd`).length};
  };
  const seconds = Number(options.seconds);
  await pause_for(Math.min(60, seconds / 4) * 1000);  // histories and rings fill
  const before = await weigh();
  console.log("before: " + JSON.stringify(before));
  await pause_for(seconds * 1000);
  const after = await weigh();
  console.log(`after ${seconds} s: ` + JSON.stringify(after));
  check(after.heap_kib - before.heap_kib < 512, "the heap does not grow");
  check(after.nodes - before.nodes < 400, "the document does not grow");  // domains come and go
  check(after.listeners - before.listeners < 50, "listeners do not pile up");
  check(after.server_rss_kib - before.server_rss_kib < 32 * 1024, "the server's memory does not grow");
  check(after.server_descriptors - before.server_descriptors < 50, "its descriptors do not grow");  // files come and go
  silent("watched");
  for (const path of ["/", "/snapshot.json", "/gate/pause", "/gate/drain"])
    check(asked.has(path), `${path} was asked for`);
  check(elsewhere.length === 0, "nothing from elsewhere: " + elsewhere.join(", "));
  shown("nothing leaks, nothing comes from elsewhere");

  // ---- without a token it only shows ----
  const read_only = await start();
  try {
    const viewer = await browser.newPage({viewport: {width: 1280, height: 900}});
    await viewer.addInitScript(text => sessionStorage.setItem("tokengate", text), secret);  // of some other time
    await viewer.goto(read_only.at);
    await viewer.waitForSelector("#status[data-is=live]");
    await until(async () => (await viewer.locator("#operation-rows th").count()) >= 14, "operations are shown");
    check(await viewer.locator("#readonly").isVisible(), "it says that it is read-only");
    check((await turns(viewer).count()) >= 2 + 2 * 14, "there are controls");
    for (const one of [...await turns(viewer).all(), ...await viewer.locator("button, input").all()])
      check(await one.isHidden(), "none can be seen, nor so used");
    for (const action of ["pause", "drain"])
      check((await gate(action, null, read_only.at)).status === 403, `${action} is refused`);
    await viewer.close();
  } finally {
    read_only.child.kill("SIGTERM");
  }
  check((await read_only.ended) === 0, "it ends with 0");
  shown("without a token it is read-only, and shows no controls");
} catch (error) {
  failed = true;
  console.error(error);
  const last_words = await Promise.all([page?.locator("#status, #said").allTextContents(), snapshot()]).catch(String);
  console.error("at that time: " + JSON.stringify(last_words));
} finally {
  await browser.close();
  server.kill("SIGTERM");
  const status = await server_ended;
  rmSync(folder, {recursive: true});
  if (status !== 0) { failed = true; console.error(`${program} ended with ${status}`); }
}
process.exit(failed ? 1 : 0);
