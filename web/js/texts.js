// The texts of these scripts in the reader's language, from locales/*/main.json.

const GROUP = "animatediffV2V";

// Returns the text with its {values}; in English, as given, where it is not translated.
export function text(key, english, values = {}) {
  const { $t } = document.getElementById("vue-app")?.__vue_app__?.config.globalProperties ?? {};
  const path = `${GROUP}.${key}`;
  const translated = $t?.(path, values) ?? path;
  if (translated !== path) return translated;
  return english.replace(/{(\w+)}/g, (_, name) => values[name]);
}
