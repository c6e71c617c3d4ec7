// Starts Swagger UI on /docs. It is a file because the page's policy allows no inline script.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  // By default some of its layouts send the document's address to a validator elsewhere.
  validatorUrl: null,
});
