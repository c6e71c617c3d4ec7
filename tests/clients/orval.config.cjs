module.exports = {
  clustr: {
    input: "./generated/openapi.json",
    output: {
      target: "./generated/orval.ts",
      client: "fetch",
      baseUrl: process.env.CLUSTR_URL,
    },
  },
};
