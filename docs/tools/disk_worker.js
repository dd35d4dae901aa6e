/* Pages opened from the disk may not start a Worker: the search runs in a hidden frame instead. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      const start = () => {
        document.body.appendChild(frame);
        this.inside = frame.contentWindow;
        window.addEventListener("message", (event) => {
          if (event.source !== this.inside) return;
          const told = new MessageEvent("message", { data: event.data });
          this.dispatchEvent(told);
          if (this.onmessage) this.onmessage(told);
        });
        const inside = this.inside.document;
        inside.open();
        inside.write(
          "<script>self.postMessage = (data) => parent.postMessage(data, '*');" +
            "self.importScripts = (...urls) => Promise.all(urls.map((url) => new Promise((done, failed) => {" +
            "const script = document.createElement('script'); script.src = url; script.onload = done;" +
            "script.onerror = failed; document.body.appendChild(script); })));</" + "script>" +
            '<body><script src="' + new URL(url, location.href) + '"></' + "script></body>"
        );
        inside.close();
        frame.onload = () => {
          this.ready = true;
          this.waiting.splice(0).forEach((data) => this.tell(data));
        };
      };
      if (document.body) start();
      else document.addEventListener("DOMContentLoaded", start);
    }
    tell(data) {
      this.inside.dispatchEvent(new MessageEvent("message", { data, source: window }));
    }
    postMessage(data) {
      if (this.ready) this.tell(data);
      else this.waiting.push(data);
    }
    terminate() {}
  };
}
