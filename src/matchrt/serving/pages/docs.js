// The interface, listed from openapi.json.
const node = (tag, text) => Object.assign(document.createElement(tag), { textContent: text ?? "" });

function rows(pairs) {
  const table = node("table");
  for (const cells of pairs) {
    const row = table.insertRow();
    for (const cell of cells) row.insertCell().append(cell);
  }
  return table;
}

function resolve(schema, all) {
  return schema && schema.$ref ? schema.$ref.split("/").slice(1).reduce((part, key) => part[key], all) : schema;
}

// What a value is, in a word or two.
function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return `list of ${kind(schema.items ?? {})}`;
  if (schema.format === "binary") return "file";
  return [schema.type ?? "any"].flat().join(" | ");
}

function fields(schema, all) {
  schema = resolve(schema, all);
  if (schema?.type === "array") schema = resolve(schema.items, all);
  if (schema && !schema.properties && schema.description) return node("p", schema.description);
  if (!schema || !schema.properties) return null;
  const needed = schema.required ?? [];
  return rows(Object.entries(schema.properties).map(([name, entry]) => {
    return [node("code", name + (needed.includes(name) ? " *" : "")), kind(entry), entry.description ?? ""];
  }));
}

function operation(path, method, entry, all) {
  const box = node("details"), head = node("summary"), verb = node("b", method.toUpperCase());
  verb.className = "method";
  head.append(verb, node("code", path));
  box.append(head, node("p", entry.description));
  const given = (entry.parameters ?? []).map((one) => [node("code", one.name), one.in, one.description ?? ""]);
  if (given.length) box.append(node("h4", "Parameters"), rows(given));
  for (const [type, content] of Object.entries(entry.requestBody?.content ?? {})) {
    const table = fields(content.schema, all);
    if (table) box.append(node("h4", "Request, " + type), table);
  }
  const answered = entry.responses["200"]?.content?.["application/json"]?.schema;
  const good = fields(answered, all);
  if (good) box.append(node("h4", answered.type === "array" ? "Answer, a list of" : "Answer"), good);
  box.append(node("h4", "Statuses"), rows(Object.entries(entry.responses).map(([status, one]) => [status, one.description])));
  return box;
}

fetch("openapi.json").then((answer) => answer.json()).then((all) => {
  document.getElementById("title").textContent = `${all.info.title} ${all.info.version}`;
  document.getElementById("about").textContent = all.info.description;
  document.getElementById("curl").textContent =
    `curl -F image0=@a.jpg -F image1=@b.jpg ${new URL("v1/match", location)}`;
  const groups = new Map();
  for (const [path, methods] of Object.entries(all.paths))
    for (const [method, entry] of Object.entries(methods)) {
      const group = entry.tags?.[0] ?? "other";
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(operation(path, method, entry, all));
    }
  for (const group of ["matching", "protocol", "triton", "health"])
    if (groups.has(group)) document.getElementById("list").append(node("h2", group), ...groups.get(group));
  const schemas = Object.entries(all.components.schemas).map(([name, schema]) => {
    const box = node("details"), head = node("summary");
    head.append(node("code", name));
    box.append(head, fields(schema, all));
    return box;
  });
  document.getElementById("list").append(node("h2", "schemas"), ...schemas);
});
