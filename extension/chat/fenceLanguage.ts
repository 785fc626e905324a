/** The language that stands behind a fence: as the page finds it, and as the editor calls it. */

/** Of the class that the renderer makes of it: `c++` of `language-c++`; empty for none. */
export function fenceLanguage(className: string): string {
  return /(?:^| )language-(\S+)/.exec(className)?.[1] ?? '';
}

/** What models write, where the editor has another name for it. */
const editorNames: Record<string, string> = {
  py: 'python',
  js: 'javascript',
  jsx: 'javascriptreact',
  ts: 'typescript',
  tsx: 'typescriptreact',
  rs: 'rust',
  rb: 'ruby',
  golang: 'go',
  kt: 'kotlin',
  cs: 'csharp',
  'c#': 'csharp',
  'f#': 'fsharp',
  'c++': 'cpp',
  objc: 'objective-c',
  sh: 'shellscript',
  bash: 'shellscript',
  shell: 'shellscript',
  zsh: 'shellscript',
  yml: 'yaml',
  md: 'markdown',
};

/** The editor's name for it; undefined for what is no name of a language. */
export function editorLanguage(language: string): string | undefined {
  const lower = language.toLowerCase();
  const name = Object.hasOwn(editorNames, lower) ? editorNames[lower]! : lower;
  return /^[\w-]{1,30}$/.test(name) ? name : undefined;
}
