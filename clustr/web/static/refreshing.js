// Sees to it that the grid shows what there is now.

const EVERY_MILLISECONDS = 3000;

/** Ask every few seconds while the page is seen, and at once when it changed something itself. */
export function startRefreshing(grid) {
  let timer = null;
  const refresh = async (options) => {
    clearTimeout(timer);
    await grid.refresh(options);
    clearTimeout(timer);
    timer = setTimeout(refreshIfSeen, EVERY_MILLISECONDS);
  };
  const refreshIfSeen = () => {
    if (document.visibilityState === "visible") refresh();
  };
  timer = setTimeout(refreshIfSeen, EVERY_MILLISECONDS);
  document.addEventListener("visibilitychange", refreshIfSeen);
  document.addEventListener("uploadschange", () => refresh({ isForced: true }));
}
