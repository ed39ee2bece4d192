// What this browser keeps of the page, as JSON under names that begin with "gemma3.". Everything works without
// it: where storage is full or forbidden, nothing is kept.

const PREFIX = "gemma3.";

export function read(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

// False if there is no room.
export function write(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
