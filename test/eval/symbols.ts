/**
 * What a repository defines and where, read from the text alone. The evaluation's own answer key: it shares no code
 * with the server, whose citations it judges.
 */

export interface Definition {
  name: string;
  path: string;
  /** 1-based. */
  line: number;
  kind: 'class' | 'function' | 'constant';
  /** Constants: the literal as the file writes it: `"text/html"`, `240`, `None`. */
  literal?: string;
}

export interface SourceFile {
  path: string;
  text: string;
}

/** Every definition that a reader would point at: top level or directly in a class, Python and JavaScript/TypeScript. */
export function definitions(file: SourceFile): Definition[] {
  if (/\.pyi?$/.test(file.path)) return pythonDefinitions(file);
  if (/\.([cm]?[jt]s|[jt]sx)$/.test(file.path)) return scriptDefinitions(file);
  return [];
}

/**
 * How often a name is bound anywhere in a file, by whatever: definitions, assignments, parameters, attributes, loop
 * variables, keys. A name bound once in a repository has one answer to "where is it defined?".
 */
export function bindings(file: SourceFile): Map<string, number> {
  const counts = new Map<string, number>();
  const code = /\.pyi?$/.test(file.path) ? maskPython(file.text) : maskScript(file.text);
  const patterns = [
    /\b(?:def|class|function\*?|const|let|var|interface|type|enum|namespace)\s+([A-Za-z_$][\w$]*)/g,
    /\b(?:for|as|global|nonlocal)\s+([A-Za-z_$][\w$]*)/g,
    // An assignment, a keyword argument, an annotation or a key; `==`, `!=`, `<=` and `=>` are none.
    /(?<![\w$])([A-Za-z_$][\w$]*)\s*(?:=(?![=>])|:(?!=)|:=)/g,
  ];
  for (const [index, pattern] of patterns.entries())
    for (const match of code.matchAll(pattern)) {
      const name = match[1]!;
      // `const NAME = …` and `class NAME:` match twice; the keyword's match is the one that counts.
      if (index === 2 && /\b(?:class|const|let|var|type)\s+$/.test(code.slice(0, match.index).slice(-12)))
        continue;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
  return counts;
}

function pythonDefinitions(file: SourceFile): Definition[] {
  const found: Definition[] = [];
  const original = file.text.split('\n');
  const code = maskPython(file.text).split('\n');
  /** Indentations of the enclosing blocks, outermost first; `class` bodies are looked into, others are not. */
  const blocks: { indent: number; isClass: boolean; isEnumeration?: boolean }[] = [];
  let depth = 0; // of open brackets: a line inside them starts no statement
  for (const [index, line] of code.entries()) {
    const startsStatement = depth === 0 && line.trim() !== '';
    depth = Math.max(0, depth + bracketBalance(line));
    if (!startsStatement) continue;
    const indent = line.length - line.trimStart().length;
    while (blocks.length > 0 && indent <= blocks[blocks.length - 1]!.indent) blocks.pop();
    const visible = blocks.every((block) => block.isClass);
    const place = { path: file.path, line: index + 1 };

    const definition = /^\s*(?:async\s+)?(def|class)\s+([A-Za-z_]\w*)/.exec(line);
    if (definition) {
      const isClass = definition[1] === 'class';
      if (visible) found.push({ ...place, name: definition[2]!, kind: isClass ? 'class' : 'function' });
      const isEnumeration = isClass && /\(.*\b\w*(?:Enum|Flag)\b/.test(line);
      blocks.push({ indent, isClass, isEnumeration });
      continue;
    }
    // A member of an enumeration is no constant: its value is the member itself, and its name means nothing without the class.
    if (blocks.at(-1)?.isEnumeration) continue;
    if (/^\s*(if|else|elif|try|except|finally|with|for|while|async|match|case)\b/.test(line)) {
      blocks.push({ indent, isClass: false });
      continue;
    }
    const constant = /^\s*([A-Za-z_]\w*)\s*(?::[^=]+)?=\s*(\S.*?)\s*(?:#.*)?$/.exec(original[index]!);
    if (visible && constant && /^\s*[A-Za-z_]\w*\s*(?::[^=]+)?=(?!=)/.test(line)) {
      const literal = plainLiteral(constant[2]!);
      if (literal) found.push({ ...place, name: constant[1]!, kind: 'constant', literal });
    }
  }
  return found;
}

function scriptDefinitions(file: SourceFile): Definition[] {
  const found: Definition[] = [];
  const original = file.text.split('\n');
  let depth = 0;
  for (const [index, line] of maskScript(file.text).split('\n').entries()) {
    const topLevel = depth === 0;
    depth = Math.max(0, depth + bracketBalance(line));
    if (!topLevel) continue;
    const place = { path: file.path, line: index + 1 };
    const definition =
      /^(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?(?:async\s+)?(class|function|interface|enum)\b\*?\s*([A-Za-z_$][\w$]*)/.exec(
        line,
      );
    if (definition) {
      const kind = definition[1] === 'function' ? 'function' : 'class';
      found.push({ ...place, name: definition[2]!, kind });
      continue;
    }
    const constant =
      /^(?:export\s+)?const\s+([A-Za-z_$][\w$]*)\s*(?::[^=]+)?=\s*(\S.*?);?\s*(?:\/\/.*)?$/.exec(
        original[index]!,
      );
    const literal = constant && plainLiteral(constant[2]!);
    if (literal) found.push({ ...place, name: constant[1]!, kind: 'constant', literal });
  }
  return found;
}

/** The literal where the whole right side is one plain literal that an answer can repeat exactly. */
function plainLiteral(source: string): string | undefined {
  const number = /^-?\d[\d_]*(\.\d+)?([eE][-+]?\d+)?$/;
  const string = /^(?:'[^'"`\\{}\n]{1,60}'|"[^'"`\\{}\n]{1,60}")$/;
  const word = /^(?:True|False|None|true|false|null)$/;
  const whole = source.trim();
  return number.test(whole) || string.test(whole) || word.test(whole) ? whole : undefined;
}

function bracketBalance(line: string): number {
  let balance = 0;
  for (const character of line)
    if ('([{'.includes(character)) balance++;
    else if (')]}'.includes(character)) balance--;
  return balance;
}

/** The same text, line for line, with the inside of strings and comments blanked. */
function maskPython(text: string): string {
  return mask(
    text,
    /"""(?:[^\\]|\\[^])*?"""|'''(?:[^\\]|\\[^])*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|#.*/g,
  );
}

function maskScript(text: string): string {
  return mask(text, /\/\*[^]*?\*\/|\/\/.*|`(?:[^`\\]|\\[^])*`|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g);
}

function mask(text: string, hidden: RegExp): string {
  return text.replace(hidden, (match) => match.replace(/[^\n]/g, ' '));
}
