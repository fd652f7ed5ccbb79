// Requests as JavaScript makes them, good and bad, each to a queue of its own: prints what comes back, a line of JSON each.
const zlib = require("node:zlib");
const amqp = require("amqplib");
const msgpackr = require("msgpackr");
const msgpack = require("@msgpack/msgpack");

const JSON_TYPE = "application/json";
const PACKED = "application/msgpack";
const NOW_MS = Date.now();
const ticker = { method: "fetch_ticker", args: { symbol: "BTC/USDT" }, id: "js" };
const candles = (args) => ({ method: "fetch_ohlcv", args: { symbol: "BTC/USDT", timeframe: "1m", ...args }, id: "js" });
const text = (value) => Buffer.from(JSON.stringify(value));
const large = { ...candles({ since: NOW_MS - 6e6, limit: 2, params: { until: NOW_MS } }), deadline_ms: NOW_MS + 30_000 };
const nothing = { ...candles({ since: undefined, limit: null }), account: undefined, strategy: null, exchanges: undefined };

const SENT = {
  "JSON": [text(ticker), JSON_TYPE],
  "large numbers by msgpackr": [msgpackr.pack(large), PACKED],
  "large numbers by @msgpack/msgpack": [msgpack.encode(large), PACKED],
  "large numbers by @msgpack/msgpack, all as floats": [msgpack.encode(large, { forceIntegerToFloat: true }), undefined],
  "null and undefined in JSON": [text(nothing), JSON_TYPE],
  "null and undefined by msgpackr": [msgpackr.pack(nothing), PACKED],
  "null and undefined by @msgpack/msgpack": [msgpack.encode(nothing), PACKED],
  "a limit of NaN in JSON, which is null": [text(candles({ limit: NaN })), JSON_TYPE],
  "a byte order mark": [Buffer.from("\ufeff" + JSON.stringify(ticker)), JSON_TYPE],
  "a byte order mark without a type": [Buffer.from("\ufeff" + JSON.stringify(ticker)), undefined],
  "a limit of NaN": [msgpackr.pack(candles({ limit: NaN })), PACKED],
  "UTF-16": [Buffer.from(JSON.stringify(ticker), "utf16le"), JSON_TYPE],
  "UTF-16 with a mark": [Buffer.from("\ufeff" + JSON.stringify(ticker), "utf16le"), undefined],
  "gzip": [zlib.gzipSync(text(ticker)), JSON_TYPE],
  "deflate": [zlib.deflateSync(text(ticker)), undefined],
  "brotli": [zlib.brotliCompressSync(text(ticker)), JSON_TYPE, "br"],
  "base64": [Buffer.from(text(ticker).toString("base64")), undefined],
  "JSON twice": [text(JSON.stringify(ticker)), JSON_TYPE],
  "JSON called MessagePack": [text(ticker), PACKED],
  "MessagePack called JSON": [msgpackr.pack(ticker), JSON_TYPE],
  "a list": [text([ticker, ticker]), JSON_TYPE],
  "a comma at the end": [Buffer.from(JSON.stringify(ticker).slice(0, -1) + ",}"), JSON_TYPE],
  "a comment": [Buffer.from("// the price\n" + JSON.stringify(ticker)), undefined],
  "undefined in a text": [Buffer.from(JSON.stringify(ticker).slice(0, -1) + `,"account":${undefined}}`), JSON_TYPE],
  "two requests": [Buffer.concat([text(ticker), text(ticker)]), JSON_TYPE],
  "two requests by msgpackr": [Buffer.concat([msgpackr.pack(ticker), msgpackr.pack(ticker)]), PACKED],
  "texts as bytes": [msgpack.encode({ ...ticker, method: Buffer.from("fetch_ticker"), id: Buffer.from("js") }), PACKED],
  "a symbol as bytes": [msgpackr.pack({ ...ticker, args: { symbol: Buffer.from("BTC/USDT") } }), PACKED],
  "floats of 32 bits": [msgpack.encode({ ...ticker, deadline_ms: NOW_MS + 30_000.5 }, { forceFloat32: true }), PACKED],
  "a date in args by msgpackr": [msgpackr.pack(candles({ since: new Date(NOW_MS) })), PACKED],
  "an empty list of arguments": [text({ method: "fetch_time", args: [], id: "js", exchanges: {} }), JSON_TYPE],
  "nothing": [Buffer.alloc(0), undefined],
  "an id that is a number": [text({ ...ticker, id: 7 }), JSON_TYPE],
  "an argument beside args": [text({ ...ticker, symbol: "BTC/USDT" }), JSON_TYPE],
  "camelCase": [text({ ...ticker, method: "fetchTicker" }), JSON_TYPE],
  "camelCase of a field": [text({ ...ticker, deadlineMs: NOW_MS + 30_000 }), JSON_TYPE],
  "a date": [text({ ...ticker, deadline_ms: new Date(NOW_MS + 30_000) }), JSON_TYPE],
  "a date by msgpackr": [msgpackr.pack({ ...ticker, deadline_ms: new Date(NOW_MS + 30_000) }), PACKED],
  "a duration": [text({ ...ticker, deadline_ms: 30_000 }), JSON_TYPE],
  "seconds": [text(candles({ since: Math.floor(NOW_MS / 1000) })), JSON_TYPE],
  "microseconds": [text(candles({ since: NOW_MS * 1000 })), JSON_TYPE],
  "a number too large for a float": [msgpackr.pack(candles({ params: { orderId: 2 ** 60 } })), PACKED],
  "an exchange in the symbol": [text({ ...ticker, args: { symbol: "binance:BTCUSDT" } }), JSON_TYPE],
  "an exchange in capitals": [text({ ...ticker, exchanges: ["OKX"] }), JSON_TYPE],
};

async function main() {
  const connection = await amqp.connect(process.env.FLEET_BROKER_URL);
  const channel = await connection.createConfirmChannel();
  const { queue } = await channel.assertQueue("", { exclusive: true });
  const open = new Set(Object.keys(SENT));
  const all = new Promise((resolve) => {
    const take = ({ content, properties }) => {
      const { contentType, correlationId } = properties;
      const result = contentType === JSON_TYPE ? JSON.parse(content.toString()) : msgpackr.unpack(content);
      const { id, ok, method, error } = result;
      console.log(JSON.stringify({ case: correlationId, contentType, id, ok, method, error }));
      open.delete(correlationId);
      if (open.size === 0) resolve();
    };
    channel.consume(queue, take, { noAck: true });
  });
  for (const [name, [body, contentType, contentEncoding]] of Object.entries(SENT)) {
    const how = { mandatory: true, correlationId: name, contentType, contentEncoding, replyTo: queue };
    channel.publish("fleet.requests", "", Buffer.from(body), how);
  }
  await channel.waitForConfirms();
  await all;
  await connection.close();
}

main();
