// Leads one request of elasticdump's, the GET / that asks for the server's version, to another port.
const http = require("http");

const request = http.request;
http.request = (options, ...rest) => {
  const asksVersion = options.method === "GET" && options.path === "/";
  const led = asksVersion ? { ...options, port: process.env.BENCH_VERSION_PORT, agent: undefined } : options;
  return request.call(http, led, ...rest);
};
