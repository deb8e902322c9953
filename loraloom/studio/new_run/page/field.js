// One setting: its name, help, and an input that its type asks for. An empty input leaves the default.

let number = 0;

const spelled = (value) => (value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value));

// Gives {node, set, fault, planned}. `suggested` is what there is to choose from: [{given, about}].
export function fieldOf(row, suggested, changed) {
  const id = `setting-${++number}`;
  const closed = row.closed && !suggested;
  const fault = make("span", { class: "field-fault", id: `${id}-fault`, hidden: true });
  let input, list = "";
  if (closed) {
    input = make("select", { id }, make("option", { value: "" }, row.default === null ? "default" : `${spelled(row.default)} (default)`), ...row.choices.map((choice) => make("option", { value: choice }, choice)));
  } else {
    input = make("input", { type: "text", id, spellcheck: false, autocomplete: "off", placeholder: row.default === "???" ? "must be given" : spelled(row.default) });
    const choices = suggested ?? row.choices.map((given) => ({ given, about: "" }));
    if (choices.length) {
      list = make("datalist", { id: `${id}-list` }, ...choices.map(({ given, about }) => make("option", { value: given, label: about ? `${given} (${about})` : given })));
      input.setAttribute("list", list.id);
    }
  }
  input.dataset.setting = row.name;
  input.setAttribute("aria-describedby", `${id}-help ${fault.id}`);
  input.addEventListener(closed ? "change" : "input", () => changed(input.value));
  const kind = closed ? "" : ` (${row.type})`;
  const help = make("small", { class: "soft", id: `${id}-help` }, `${row.help}${kind}`);
  const node = make("div", { class: "field" }, make("label", { class: "field-name", for: id, htmlFor: id }, row.name), input, list, fault, help);
  return {
    node,
    set: (text) => {
      if (closed && text && ![...input.options].some((option) => option.value === text)) input.append(make("option", { value: text }, text));
      input.value = text;
    },
    fault: (texts) => {
      fault.textContent = texts.join("\n");
      fault.hidden = !texts.length;
      if (texts.length) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    },
    planned: (value) => {
      if (closed) {
        if (value !== undefined) input.options[0].textContent = value === null ? "default" : `${spelled(value)} (planned)`;
      } else if (value !== undefined && value !== null) input.placeholder = spelled(value);
      else input.placeholder = row.default === "???" ? "must be given" : spelled(row.default);
    },
  };
}
