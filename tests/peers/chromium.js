// Headless Chromium on the demo page: chats through the gateway, prints JSON, saves a screenshot.
// node chromium.js --url http://127.0.0.1:PORT/ --screenshot FILE.png
'use strict';
const { chromium } = require('playwright-core');
const { parseArgs } = require('node:util');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const { values: args } = parseArgs({
  options: {
    url: { type: 'string' }, screenshot: { type: 'string' }, path: { type: 'string' },
    answered: { type: 'string' },
  },
});
const TEXTS = [`hello from Chromium ${process.pid}`, 'größe 😀 <b>not bold</b>'];
const LIMIT_MS = 15_000; // each wait
const ANSWERS = 5;

// Without these Chromium looks for its maker's hosts at every start; --no-sandbox: we are root.
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];

// Until the browser has answered Pings, by the gateway's metrics: pages are not shown any.
async function answered(metrics) {
  const late = Date.now() + LIMIT_MS;
  for (;;) {
    const text = await (await fetch(metrics)).text();
    const count = /^wsproxy_ping_seconds_count\{side="client"\} (\d+)$/m.exec(text);
    if (Number(count?.[1] ?? 0) >= ANSWERS) return;
    if (Date.now() > late) throw new Error(`not ${ANSWERS} Pings answered within ${LIMIT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function main() {
  if (!args.url || !args.screenshot) {
    throw new Error('usage: chromium.js --url URL --screenshot FILE.png ' +
      '[--path kernel|relay] [--answered METRICS-URL]');
  }
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'wsproxy-chromium-'));
  let browser;
  try {
    browser = await chromium.launchPersistentContext(profile, {
      executablePath: '/usr/bin/chromium', headless: true, args: FLAGS, timeout: 30_000,
      viewport: { width: 1000, height: 700 },
    });
    const page = browser.pages()[0] ?? (await browser.newPage());
    page.setDefaultTimeout(LIMIT_MS);
    const errors = [];
    page.on('pageerror', (error) => errors.push(error.message));
    // `read` runs in the page; its first truthy answer is returned.
    const wait = async (what, read, arg) => {
      try {
        return await (await page.waitForFunction(read, arg)).jsonValue();
      } catch (error) {
        throw new Error(`${what}: not within ${LIMIT_MS} ms (${error.message.split('\n')[0]})`);
      }
    };
    const content = (id) => wait(`${id} filled`, (s) => document.querySelector(s).textContent.trim(), id);

    await page.goto(args.url);
    await page.click('#connect');
    await wait('#state open', () => document.querySelector('#state').textContent.trim() === 'open');
    if (args.answered) await answered(args.answered);
    for (const text of TEXTS) {
      await page.fill('#message', text);
      await page.click('#send');
      await wait(`#log contains ${text}`, (t) => document.querySelector('#log').textContent.includes(t), text);
    }
    const rtt = await wait('#rtt a number', () => /\d+(\.\d+)?/.exec(document.querySelector('#rtt').textContent)?.[0]);
    const count = Number(await content('#count'));
    const datapath = await wait('#path kernel or relay', () =>
      /^(kernel|relay)$/.exec(document.querySelector('#path').textContent.trim())?.[0]);
    await page.screenshot({ path: args.screenshot });
    if (!(count >= TEXTS.length)) throw new Error(`#count is ${count}, after ${TEXTS.length} messages`);
    if (args.path && args.path !== datapath) throw new Error(`#path is ${datapath}, want ${args.path}`);
    if (errors.length) throw new Error(`errors in the page: ${errors.join('; ')}`);
    const version = browser.browser()?.version();
    console.log(JSON.stringify({ ok: true, url: args.url, version, rtt_ms: Number(rtt), count, path: datapath, texts: TEXTS }));
  } catch (error) {
    // What the page looked like then says more than the error.
    await browser?.pages()[0]?.screenshot({ path: args.screenshot }).catch(() => {});
    throw error;
  } finally {
    await browser?.close();
    fs.rmSync(profile, { recursive: true, force: true });
  }
}

main().then(() => process.exit(0), (error) => {
  console.log(JSON.stringify({ ok: false, url: args.url, error: error.message }));
  console.error(`FAIL ${error.message}`);
  process.exit(1);
});
