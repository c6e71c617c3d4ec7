// Pauses between two questions to the service.

/** Wait so many milliseconds, and then until the page is seen. */
export async function pause(milliseconds) {
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
  while (document.visibilityState !== "visible") {
    await new Promise((resolve) =>
      document.addEventListener("visibilitychange", resolve, { once: true }),
    );
  }
}
