// Browsers start no worker for a page that is a file. This one runs the script of the search in a hidden frame.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      const inside = (this.inside = frame.contentWindow)
      inside.postMessage = (data) => setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data })))
      const script = inside.document.createElement("script")
      script.src = url
      script.onload = () => this.waiting.splice(0).forEach((data) => this.deliver(data)) || (this.isReady = true)
      inside.document.body.append(script)
    }
    postMessage(data) {
      this.isReady ? this.deliver(data) : this.waiting.push(data)
    }
    deliver(data) {
      setTimeout(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
  window.Worker = window.IFrameWorker
}
