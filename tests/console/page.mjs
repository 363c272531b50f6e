// SPDX-License-Identifier: MIT
// The console's page in a browser, over the dashboard sample: it loads from nowhere else, moves, turns the gate by
// mouse and by keyboard, fits narrow screens, can be read in light and dark, and leaks nothing.
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

// ---- the program and the browser ----
const secret = "0123456789abcdef0123456789abcdef";
const folder = mkdtempSync(join(tmpdir(), "page-"));
writeFileSync(join(folder, "token"), secret + "\n");
const server = spawn(program, ["--port", "0", "--token-file", join(folder, "token")],
                     {stdio: ["ignore", "pipe", "inherit"]});
const server_ended = new Promise(done => server.on("exit", status => done(status)));
const began = Date.now();
const url = await new Promise((done, failed) => {
  createInterface({input: server.stdout}).once("line", done);
  server_ended.then(status => failed(new Error(`${program} ended with ${status}`)));
});
const snapshot = async () => (await fetch(url + "snapshot.json")).json();
const operation = async name => (await snapshot()).operations.find(one => one.operation === name);

const browser = await chromium.launch({executablePath: browser_program, args: ["--no-sandbox"]});  // root has none
let failed = false;
try {
  const page = await browser.newPage({viewport: {width: 1280, height: 900}, colorScheme: "light"});
  const complaints = [], elsewhere = [];
  page.on("console", said => { if (["error", "warning"].includes(said.type())) complaints.push(said.text()); });
  page.on("pageerror", error => complaints.push(String(error)));
  page.on("request", request => {
    if (!/^data:/.test(request.url()) && !request.url().startsWith(url)) elsewhere.push(request.url());
  });
  const silent = what => check(complaints.length === 0, `${what} without complaints: ${complaints.join("; ")}`);

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
    return Number((await pair.locator("dd").textContent()).replaceAll(",", ""));
  };
  const ended = await number("ended");
  await until(async () => (await number("ended")) > ended && (await number("ended per second")) > 0, "numbers move");
  const history = () => page.locator("#core-rows path").first().getAttribute("d");
  const drawn = await history();
  await until(async () => (await history()) !== drawn, "the cores' history moves");
  silent("it loads and moves");
  shown("numbers and the cores' history move");

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
  check((await stops()).join().startsWith("token,Enable controls"), "without a token, Tab comes to where it is entered");

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

  // ---- the same by keyboard; drain; all ----
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
  await page.getByRole("button", {name: "Resume all"}).click();
  await page.waitForSelector("#status[data-is=live]");
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
  check(elsewhere.length === 0, "nothing from elsewhere: " + elsewhere.join(", "));
  shown("nothing leaks, nothing comes from elsewhere");
} catch (error) {
  failed = true;
  console.error(error.stack);
} finally {
  await browser.close();
  server.kill("SIGTERM");
  const status = await server_ended;
  rmSync(folder, {recursive: true});
  if (status !== 0) { failed = true; console.error(`${program} ended with ${status}`); }
}
process.exit(failed ? 1 : 0);
