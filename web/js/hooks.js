// Functions that run before or after a node's own.

export function before(object, name, first) {
  const own = object[name];
  object[name] = function (...values) {
    first(...values);
    return own?.apply(this, values);
  };
}

export function after(object, name, then) {
  const own = object[name];
  object[name] = function (...values) {
    const result = own?.apply(this, values);
    then(...values);
    return result;
  };
}
