/** Earlier chats of this workspace: kept by the editor, shown in a pick list, deleted one by one or all at once. */
import { ThemeIcon, window, type Memento, type QuickPickItem } from 'vscode';
import type { SavedChat } from './chatState';
import { plainText } from './plainText';

interface PastChat extends SavedChat {
  id: string;
  /** When it was put away, in ms. */
  time: number;
}

const key = 'longview.pastChats';
const maxChats = 50;

export class ChatHistory {
  constructor(private readonly memento: Memento) {}

  private get chats(): PastChat[] {
    return this.memento.get<PastChat[]>(key, []);
  }

  private keep(chats: PastChat[]): void {
    void this.memento.update(key, chats.slice(0, maxChats));
  }

  /** Puts a chat away; one without turns is not worth it. */
  add(chat: SavedChat, id: string): void {
    if (chat.turns.length > 0) this.keep([{ ...chat, id, time: Date.now() }, ...this.chats]);
  }

  /** Takes a chat out; undefined where it is not there. */
  take(id: string): SavedChat | undefined {
    const chat = this.chats.find((candidate) => candidate.id === id);
    this.keep(this.chats.filter((candidate) => candidate !== chat && candidate.id !== id));
    return chat;
  }

  private async clearWhenSure(): Promise<void> {
    const { length } = this.chats;
    if (length === 0) return;
    const question = `Delete ${length === 1 ? 'the earlier chat' : `all ${length} earlier chats`} of this workspace?`;
    if ((await window.showWarningMessage(question, { modal: true }, 'Delete')) === 'Delete') this.keep([]);
  }

  /** Lets the user choose, and delete; the id of the chosen chat. */
  pick(): Promise<string | undefined> {
    interface Item extends QuickPickItem {
      id: string;
    }
    const remove = { iconPath: new ThemeIcon('trash'), tooltip: 'Delete this chat' };
    const removeAll = { iconPath: new ThemeIcon('clear-all'), tooltip: 'Delete all earlier chats' };
    const picker = window.createQuickPick<Item>();
    const show = () => {
      picker.items = this.chats.map(({ id, time, turns }) => ({
        id,
        label: plainText(turns[0]?.question.split('\n', 1)[0] ?? ''),
        detail: `${turns.length} ${turns.length === 1 ? 'question' : 'questions'} · ${new Date(time).toLocaleString()}`,
        buttons: [remove],
      }));
      picker.placeholder =
        picker.items.length > 0 ? 'Go on with an earlier chat' : 'There is no earlier chat in this workspace';
    };
    picker.title = 'Longview: Chat History';
    picker.buttons = [removeAll];
    show();
    picker.onDidTriggerItemButton(({ item }) => {
      this.take(item.id);
      show();
    });
    picker.onDidTriggerButton(() => {
      // The list shows those alone that are typed; all go.
      picker.hide();
      void this.clearWhenSure();
    });
    picker.show();
    return new Promise<string | undefined>((resolve) => {
      picker.onDidAccept(() => resolve(picker.selectedItems[0]?.id));
      picker.onDidHide(() => resolve(undefined));
    }).finally(() => picker.dispose());
  }
}
