// Starts ReDoc on /redoc. It is a file because the page's policy allows no inline script.

// ReDoc draws its maker's logo from the maker's host, and no option turns that off. No request may
// leave this host, so an image from elsewhere gets an empty address; ReDoc then leaves the logo out
// and keeps the link beside it. React sets an image's address both ways, as attribute and property.
const image = HTMLImageElement.prototype;

image.setAttribute = function (name, value) {
  const elsewhere = /^https?:/.test(value) && !value.startsWith(`${location.origin}/`);
  Element.prototype.setAttribute.call(this, name, name === "src" && elsewhere ? "data:," : value);
};

Object.defineProperty(image, "src", {
  ...Object.getOwnPropertyDescriptor(image, "src"),
  set(value) {
    this.setAttribute("src", value);
  },
});

const font = "system-ui, sans-serif";

Redoc.init(
  "openapi.json",
  // The fonts that ReDoc names by default are not shipped with it.
  { theme: { typography: { fontFamily: font, headings: { fontFamily: font } } } },
  document.getElementById("redoc"),
);
