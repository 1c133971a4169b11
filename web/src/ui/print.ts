import { createContext } from "preact";
import { useEffect, useState } from "preact/hooks";

/** Whether the page is on its way to paper: nobody can click there, so what is cut on a screen is whole. */
export const Printing = createContext(false);

/** {@link Printing}'s value: true from before a page is laid out for paper until it is printed. */
export function usePrinting(): boolean {
  const [printing, setPrinting] = useState(() => window.matchMedia("print").matches);
  useEffect(() => {
    const paper = window.matchMedia("print");
    const begin = () => setPrinting(true);
    const end = () => setPrinting(paper.matches);
    window.addEventListener("beforeprint", begin);
    window.addEventListener("afterprint", end);
    paper.addEventListener("change", end);
    return () => {
      window.removeEventListener("beforeprint", begin);
      window.removeEventListener("afterprint", end);
      paper.removeEventListener("change", end);
    };
  }, []);
  return printing;
}
