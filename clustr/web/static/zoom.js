// Zooms and moves an image in its frame: by wheel, pinch, double click, dragging and keys.

const LARGEST = 8;
/** What one press of a key or button, and a double click, enlarge by. */
const [STEP, LEAP] = [1.5, 2.5];
/** How far a finger moves before it is a swipe, in pixels. */
const SWIPE = 60;

/** An image in a frame; tells "zoom" when it is shown larger or smaller, "swipe" with a `step`. */
export class Zoom extends EventTarget {
  scale = 1;
  #x = 0;
  #y = 0;
  #pointers = new Map();
  #start = null;

  /**
   * @param {HTMLElement} frame what cuts the image.
   * @param {HTMLElement} image as large as the frame while it is not zoomed.
   */
  constructor(frame, image) {
    super();
    this.frame = frame;
    this.image = image;
    frame.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    frame.addEventListener("dblclick", (event) => this.#zoomAt(this.scale > 1 ? 1 : LEAP, event));
    frame.addEventListener("pointerdown", (event) => this.#press(event));
    frame.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      frame.addEventListener(name, (event) => this.#release(event));
    }
  }

  enlarge() {
    this.#zoomAt(this.scale * STEP);
  }

  reduce() {
    this.#zoomAt(this.scale / STEP);
  }

  /** Show all of the image. */
  reset() {
    this.#zoomAt(1);
  }

  #wheel(event) {
    event.preventDefault();
    this.#zoomAt(this.scale * Math.exp(-event.deltaY / 300), event);
  }

  /** Zoom, with what is at a point of the window left there; without one the middle. */
  #zoomAt(scale, point) {
    const box = this.frame.getBoundingClientRect();
    const x = point ? point.clientX - box.left - box.width / 2 : 0;
    const y = point ? point.clientY - box.top - box.height / 2 : 0;
    const wanted = Math.min(Math.max(scale, 1), LARGEST);
    const factor = wanted / this.scale;
    this.#x = x - (x - this.#x) * factor;
    this.#y = y - (y - this.#y) * factor;
    this.scale = wanted;
    this.#apply();
    this.dispatchEvent(new Event("zoom"));
  }

  /** Move the image, which never leaves its frame. */
  #apply() {
    const most = (length) => (length * (this.scale - 1)) / 2;
    const { clientWidth, clientHeight } = this.frame;
    this.#x = Math.min(Math.max(this.#x, -most(clientWidth)), most(clientWidth));
    this.#y = Math.min(Math.max(this.#y, -most(clientHeight)), most(clientHeight));
    this.image.style.transform = `translate(${this.#x}px, ${this.#y}px) scale(${this.scale})`;
  }

  #press(event) {
    if (event.button !== 0 || event.target.closest("button")) return;
    this.frame.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, event);
    this.#start = this.#pointers.size === 1 ? event : null;
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.#pointers.values()].filter((other) => other !== before);
    this.#pointers.set(event.pointerId, event);
    if (others.length > 0) {
      const [other] = others;
      this.#zoomAt(
        (this.scale * distance(event, other)) / (distance(before, other) || 1),
        middle(event, other),
      );
    } else if (this.scale > 1) {
      this.#x += event.clientX - before.clientX;
      this.#y += event.clientY - before.clientY;
      this.#apply();
    }
  }

  #release(event) {
    if (!this.#pointers.delete(event.pointerId) || !this.#start || this.scale > 1) return;
    const across = event.clientX - this.#start.clientX;
    const down = event.clientY - this.#start.clientY;
    this.#start = null;
    if (event.type === "pointercancel" || Math.abs(across) < SWIPE || Math.abs(across) < 2 * Math.abs(down))
      return;
    this.dispatchEvent(Object.assign(new Event("swipe"), { step: across < 0 ? 1 : -1 }));
  }
}

function distance(one, other) {
  return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
}

function middle(one, other) {
  return { clientX: (one.clientX + other.clientX) / 2, clientY: (one.clientY + other.clientY) / 2 };
}
