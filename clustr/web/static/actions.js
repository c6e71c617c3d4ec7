// The buttons at the top of the page, to which each module adds its own.

/** Add a button that calls `run`; returns it. */
export function addAction(label, run) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", run);
  document.getElementById("actions").append(button);
  return button;
}
