/** Where head profiles lie: what each head of a model may leave out, measured once (native/sparse/head_profile.h). */
import path from 'node:path';

/** Of models that were calibrated on this machine. */
export function calibratedFolder(modelsFolder: string): string {
  return path.join(modelsFolder, 'profiles');
}

/** Where the engine looks, in this order; the second is for what comes with the built-in model. */
export function profileFolders(modelsFolder: string, extensionFolder: string): string[] {
  return [calibratedFolder(modelsFolder), path.join(extensionFolder, 'media', 'model')];
}
