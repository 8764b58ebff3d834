// Lists of the API, a page at a time.

import { button, h } from "./dom.js";

const LIMIT = 50;

/**
 * The first page of a list as `draw(rows)` shows it, and a button for more while there is more. Pages are put after one
 * another; `draw` is given all rows that are there.
 */
export async function allPages(api, path, query, draw, limit = LIMIT) {
  const rows = [];
  const shown = h("div");
  const slot = h("div");
  let cursor = null;
  const load = async () => {
    const { body } = await api.get(path, { ...query, limit, cursor });
    rows.push(...body.data);
    cursor = body.nextCursor;
    shown.replaceChildren(draw(rows));
    more.hidden = cursor === null || cursor === undefined;
  };
  const more = button("Show more", load, { slot, class: "quiet", hidden: true });
  await load();
  return h("div", null, shown, slot, more);
}
