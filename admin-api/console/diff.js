// What differs between two JSON values, member by member. Nothing here touches the page.

/** Rows `{path, before, after}` of everything that differs, in the order of the members; `undefined` is "was not there". */
export function differences(before, after, path = "") {
  if (same(before, after)) return [];
  const bothAre = (check) => check(before) && check(after);
  if (bothAre(Array.isArray) || bothAre(isPlain)) {
    const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
    return [...keys].flatMap((key) =>
      differences(own(before, key), own(after, key), `${path}/${escape(key)}`),
    );
  }
  // What is new or gone as a whole is told member by member too: that reads better than one long line.
  const other =
    before === undefined || before === null
      ? after
      : after === undefined || after === null
        ? before
        : undefined;
  if (isPlain(other) && Object.keys(other).length > 0) {
    return Object.keys(other).flatMap((key) =>
      differences(
        other === before ? other[key] : undefined,
        other === after ? other[key] : undefined,
        `${path}/${escape(key)}`,
      ),
    );
  }
  return [{ path: path || "/", before, after }];
}

const isPlain = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const own = (object, key) => (Object.hasOwn(object, key) ? object[key] : undefined);
/** As RFC 6901 has it. */
const escape = (key) => key.replaceAll("~", "~0").replaceAll("/", "~1");
const same = (a, b) =>
  a === b || (a !== undefined && b !== undefined && JSON.stringify(a) === JSON.stringify(b));

/** What makes `after` of `before` as a merge patch (RFC 7396): members that are gone are null. */
export function mergePatch(before, after) {
  const patch = {};
  for (const key of new Set([...Object.keys(before ?? {}), ...Object.keys(after)])) {
    const [was, is] = [own(before ?? {}, key), own(after, key)];
    if (same(was ?? undefined, is)) continue;
    if (is === undefined) {
      if (was !== null && was !== undefined) patch[key] = null;
    } else patch[key] = isPlain(was) && isPlain(is) ? mergePatch(was, is) : is;
  }
  return patch;
}
