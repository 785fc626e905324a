/** What is not in the prompt, by the reason, in words. For the panel and the document. */
import type { MoreRoom, SkippedFile, SkipReason } from '../../server/protocol';
import { count } from './count';

const reasons: Record<SkipReason, string> = {
  ignored: 'By ignore files',
  excluded: 'By your settings',
  dependency: 'Dependencies',
  'build-output': 'Build output',
  'lock-file': 'Lock files',
  minified: 'Minified',
  generated: 'Generated',
  binary: 'Binary',
  'too-large': 'Too large',
  secret: 'Secrets',
  'not-a-file': 'Pipes, sockets, devices',
  'link-loop': 'Symbolic links',
  'read-elsewhere': 'In another folder too',
  unreadable: 'Unreadable',
  'invalid-utf8': 'Not UTF-8: files.encoding can say what they are in',
  empty: 'Empty',
  base64: 'Base64, as of pictures, in files that are read',
  'over-budget': "Beyond the model's window",
};

/** Heading and files; what had no room comes first. */
export function leftOut(skipped: readonly SkippedFile[]): [string, SkippedFile[]][] {
  const groups = new Map<SkipReason, SkippedFile[]>();
  for (const file of skipped) {
    const group = groups.get(file.reason);
    if (group) group.push(file);
    else groups.set(file.reason, [file]);
  }
  return [...groups]
    .sort(([a], [b]) => Number(b === 'over-budget') - Number(a === 'over-budget'))
    .map(([reason, files]) => [`${reasons[reason]} (${count(files.length)})`, files]);
}

/** A file's line in such a list. */
export function leftOutLine({ path, detail }: SkippedFile): string {
  return detail ? `${path} (${detail})` : path;
}

/** How what is beyond the window can have room. */
export function roomText(room: MoreRoom): string {
  const tokens = `${count(room.window)} tokens`;
  return room.by === 'stretch'
    ? `This model's window can be ${room.factor === 2 ? 'twice' : 'four times'} as large, ${tokens}, by YaRN, as its makers recommend for longer texts.`
    : `Memory ends the window. What was read can be kept in 4 bits instead of 8, a little less exact: there is room for ${tokens} then.`;
}
