// Headless Chromium on page/ by https, whose script talks by wss to the same origin: prints JSON.
// node chromium_tls.js --url https://localhost:PORT/ --certificate FILE.pem
'use strict';
const { chromium } = require('playwright-core');
const { parseArgs } = require('node:util');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const { values: args } = parseArgs({
  options: { url: { type: 'string' }, certificate: { type: 'string' } },
});
const LIMIT_MS = 30_000; // each wait

// Without these Chromium looks for its maker's hosts at every start; --no-sandbox: we are root.
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];

// Chromium overlooks what is wrong with the certificates of this key, and of no other.
function trusted(file) {
  const { publicKey } = new crypto.X509Certificate(fs.readFileSync(file));
  const der = publicKey.export({ type: 'spki', format: 'der' });
  const hash = crypto.createHash('sha256').update(der).digest('base64');
  return `--ignore-certificate-errors-spki-list=${hash}`;
}

// What the page says when its script is done.
async function result(page) {
  const done = () => {
    const text = document.querySelector('#result').textContent;
    return text !== 'waiting' && text;
  };
  const text = await (await page.waitForFunction(done)).jsonValue();
  if (!text.startsWith('ok ')) throw new Error(`the page says: ${text}`);
  const color = await page.evaluate(() => getComputedStyle(document.querySelector('#result')).color);
  if (color !== 'rgb(1, 2, 3)') throw new Error(`the page's style is not there: ${color}`);
  return text;
}

async function main() {
  if (!args.url || !args.certificate) {
    throw new Error('usage: chromium_tls.js --url URL --certificate FILE.pem');
  }
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'wsproxy-chromium-'));
  let browser;
  try {
    browser = await chromium.launchPersistentContext(profile, {
      executablePath: '/usr/bin/chromium', headless: true,
      args: [...FLAGS, trusted(args.certificate)], timeout: 60_000,
    });
    const page = browser.pages()[0] ?? (await browser.newPage());
    page.setDefaultTimeout(LIMIT_MS);
    const errors = [];
    page.on('pageerror', (error) => errors.push(error.message));
    const first = await page.goto(args.url);
    const security = await first.securityDetails();
    const said = await result(page);
    // What the browser has it asks for conditionally.
    await page.reload();
    await result(page);
    if (errors.length) throw new Error(`errors in the page: ${errors.join('; ')}`);
    console.log(JSON.stringify({ ok: true, said, protocol: security.protocol }));
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
