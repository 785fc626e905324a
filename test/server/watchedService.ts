/** The backend without its wire, on one folder, with every status that it showed. */
import type { Settings, Status } from '../../server/protocol';
import { Service } from '../../server/service';
import { root } from './reference';

export class WatchedService {
  readonly service: Service;
  statuses: Status[] = [];
  onStatus: (status: Status) => void = () => {};

  constructor(settings: Settings, name: string, folder: string, modelsFolder: string) {
    this.service = new Service({
      settings,
      roots: [{ name, folder }],
      modelsFolder,
      extensionFolder: root,
      trusted: true,
      onStatus: (status) => {
        this.statuses.push(status);
        this.onStatus(status);
      },
    });
  }
}
