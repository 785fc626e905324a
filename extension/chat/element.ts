/** An element of the page, with what is in it; text is never read as HTML. */
export function element<K extends keyof HTMLElementTagNameMap>(
  name: K,
  className: string,
  ...content: (string | Node)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  made.className = className;
  made.append(...content);
  return made;
}

/** A button, and what it does when it is pressed. */
export function button(
  className: string,
  press: () => void,
  ...content: (string | Node)[]
): HTMLButtonElement {
  const made = element('button', className, ...content);
  made.type = 'button';
  made.addEventListener('click', press);
  return made;
}
