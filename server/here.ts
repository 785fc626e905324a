/** Where relative paths begin: npm runs scripts in the package's folder, and people mean the one they stand in. */
export const here = process.env.INIT_CWD ?? process.cwd();
